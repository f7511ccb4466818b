"""Text becomes rows as promised, or leads to one clear error."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import tiny
from tokenizers import normalizers, processors

import layerimp
from layerimp.calibration import CalibrationSet, TextStream, load_calibration
from layerimp.errors import CalibrationError
from layerimp.testing import tiny_tokenizer
from layerimp.testing.tiny import WORDS

BOS, EOS = 1, 2
FRAMES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "bos and eos": ((BOS,), (), (EOS,)),
    "neither": ((), (), ()),
    "eos": ((), (), (EOS,)),
    "framed": ((BOS,), (EOS,), ()),
}
"""The tokens at the beginning and the end of each row, and the separator of documents."""


@cache
def tokenizer(frame: str = "bos and eos") -> Any:
    made = tiny_tokenizer(bos="bos" in frame or frame == "framed", eos=frame != "neither")
    if frame == "framed":
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
    return made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (["text"], "batch 0 is text, not token ids: pass [tokenizer(texts, return_tensors='pt', padding=True)]"),
        ("text", "batch 0 is text, not token ids"),
        ([7], "batch 0 is a int without input_ids"),
        ([{"ids": torch.ones(1, 2)}], "batch 0 is a dict without input_ids"),
        ([{"input_ids": [[1, 2]]}], "batch 0: input_ids is a list, not a tensor; a tokenizer gives tensors with"),
        ([{"input_ids": torch.ones(1, 2).long(), "labels": [1]}], "batch 0: labels is a list, not a tensor"),
        ({"input_ids": torch.ones(1, 2).long()}, "a single batch, not a list of batches: pass [batch]"),
    ],
)
def test_what_is_no_batch_is_told_how_to_become_one(text: Any, said: str) -> None:
    with pytest.raises(CalibrationError, match=re.escape(said)):
        layerimp.score(tiny("llama"), text, ["avss"])


def write_jsonl(path: Path, texts: list[str], field: str = "text") -> Path:
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    return path


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Document i contains `w<i>` i + 1 times."""
    return write_jsonl(tmp_path / "numbered.jsonl", [" ".join([f"w{i}"] * (i + 1)) for i in range(12)])


@pytest.mark.parametrize("frame", FRAMES)
@settings(derandomize=True, max_examples=25, deadline=None, database=None)
@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=8),
    max_length=st.integers(3, 12),
    seed=st.integers(0, 99),
)
def test_windows_reproduce_the_token_stream(frame: str, lengths: list[int], max_length: int, seed: int) -> None:
    before, after, end = FRAMES[frame]
    documents = [[len(WORDS) + 5 * index + place % 5 for place in range(n)] for index, n in enumerate(lengths)]
    room = max_length - len(before) - len(after)
    full = sum(n + len(end) for n in lengths) // room

    def load(samples: int) -> CalibrationSet:
        return load_calibration(path, tokenizer(frame), samples=samples, max_length=max_length, seed=seed)

    with tempfile.TemporaryDirectory() as folder:
        texts = [" ".join(f"w{token - len(WORDS)}" for token in document) for document in documents]
        path = write_jsonl(Path(folder) / "text.jsonl", texts)
        with pytest.raises(CalibrationError, match=f"holds {full} windows of {max_length} tokens"):
            load(full + 1)
        if not full:
            return
        rows = load(full).rows
    assert len(rows) == full
    inner: list[int] = []
    for row in rows:
        assert len(row) == max_length
        assert (row[: len(before)], row[max_length - len(after) :]) == (before, after)
        inner += row[len(before) : max_length - len(after)]
    order = dict.fromkeys((token - len(WORDS)) // 5 for token in inner if token >= len(WORDS))
    stream = [token for index in order for token in [*documents[index], *end]]
    assert inner == stream[: len(inner)]


@pytest.mark.parametrize("frame", FRAMES)
def test_rows_hold_one_document_each(numbered: Path, frame: str) -> None:
    before, after, _ = FRAMES[frame]
    drawn = load_calibration(numbered, tokenizer(frame), samples=12, max_length=8, packing="rows")
    room = 8 - len(before) - len(after)
    expected = [(*before, *[len(WORDS) + i] * min(i + 1, room), *after) for i in range(12)]
    assert sorted(drawn.rows) == sorted(expected)
    assert drawn.num_tokens == sum(map(len, expected))


@pytest.mark.parametrize("packing", ["windows", "rows"])
def test_a_row_without_room_for_text_is_refused(numbered: Path, packing: Any) -> None:
    with pytest.raises(CalibrationError, match="2 tokens have no room beside 2 special ones"):
        load_calibration(numbered, tokenizer("framed"), samples=1, max_length=2, packing=packing)


def test_a_document_without_tokens_is_an_empty_row(tmp_path: Path) -> None:
    made = tiny_tokenizer(bos=False)
    made.backend_tokenizer.normalizer = normalizers.Replace("dog", "")
    path = write_jsonl(tmp_path / "text.jsonl", ["dog", "dog"])
    with pytest.raises(CalibrationError, match=r"empty|no token"):
        load_calibration(path, made, samples=2, max_length=4, packing="rows")


def test_batches_are_padded_and_iterate_again(numbered: Path) -> None:
    drawn = load_calibration(numbered, tokenizer(), samples=7, max_length=9, batch_size=3, packing="rows")
    batches = list(drawn)
    assert len(batches) == len(drawn) == 3
    assert [len(batch["input_ids"]) for batch in batches] == [3, 3, 1]
    rows = []
    for batch in batches:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        assert ids.dtype == mask.dtype == torch.int64
        assert ids.shape[1] == mask.sum(dim=1).max()
        assert torch.equal(mask, mask.sort(dim=1, descending=True).values)
        rows += [tuple(row[keep.bool()].tolist()) for row, keep in zip(ids, mask, strict=True)]
    assert tuple(rows) == drawn.rows
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(batches, drawn, strict=True))


def test_the_fingerprint_follows_the_tokens_only(numbered: Path) -> None:
    def load(**changes: Any) -> CalibrationSet:
        return load_calibration(numbered, tokenizer(), **{"samples": 6, "max_length": 8, **changes})

    first = load()
    assert load().rows == first.rows
    assert load(batch_size=1).fingerprint == first.fingerprint
    others = [load(seed=1), load(samples=5), load(max_length=7), load(packing="rows")]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert first.description == {
        "source": str(numbered),
        "rows": 6,
        "tokens": 48,
        "fingerprint": first.fingerprint,
    }


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Document i contains `w<i>`, and has the label i % 3 as a number and by name."""
    path = tmp_path / "labelled.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"w{i}", "number": i % 3, "name": "abc"[i % 3]}) + "\n" for i in range(12))
    )
    return path


ABC = {"a": 0, "b": 1, "c": 2}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("label_field", ["number", "name"])
def test_labels_stay_with_their_rows(labelled: Path, label_field: str, seed: int) -> None:
    drawn = load_calibration(
        labelled,
        tokenizer("neither"),
        samples=7,
        max_length=8,
        batch_size=3,
        seed=seed,
        packing="rows",
        label_field=label_field,
        label2id=ABC,
    )
    expected = tuple((row[0] - len(WORDS)) % 3 for row in drawn.rows)
    assert drawn.labels == expected
    batches = list(drawn)
    assert all(batch["labels"].dtype == torch.int64 for batch in batches)
    assert [batch["labels"].tolist() for batch in batches] == [list(expected[i : i + 3]) for i in (0, 3, 6)]
    assert drawn.description["labels"] == {str(i): expected.count(i) for i in sorted(set(expected))}


def test_the_fingerprint_covers_the_labels(labelled: Path) -> None:
    def load(**changes: Any) -> CalibrationSet:
        return load_calibration(labelled, tokenizer(), samples=6, max_length=8, packing="rows", **changes)

    bare, by_number = load(), load(label_field="number")
    assert bare.rows == by_number.rows
    assert "labels" not in next(iter(bare))
    by_name = load(label_field="name", label2id=ABC)
    swapped = load(label_field="name", label2id={"a": 1, "b": 0, "c": 2})
    assert by_name.fingerprint == by_number.fingerprint
    assert len({bare.fingerprint, by_name.fingerprint, swapped.fingerprint}) == 3


@pytest.mark.parametrize(
    ("label", "label2id", "said"),
    [
        ("d", ABC, r"line 2: the field 'y' holds 'd', which is no label of the model; it knows: a \(0\), b \(1\)"),
        (3, ABC, "holds 3, which is no label of the model"),
        (-1, ABC, "holds -1, which is no label"),
        (-1, None, "holds -1, but labels count from 0"),
        ("a", None, "holds the name 'a'; names need the model's label2id"),
        (1.0, ABC, r"holds a float, not a label \(a whole number, or a name\)"),
        (True, ABC, "holds a bool"),
        (None, ABC, "holds a NoneType"),
        ([1], ABC, "holds a list"),
    ],
)
def test_a_wrong_label_is_named(tmp_path: Path, label: Any, label2id: Any, said: str) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": "good", "y": y}) + "\n" for y in (0, label)))
    with pytest.raises(CalibrationError, match=said):
        load_calibration(path, tokenizer(), samples=1, packing="rows", label_field="y", label2id=label2id)


def test_labels_that_cannot_be_are_refused(labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"'number' needs the packing rows \(--packing rows\)"):
        load_calibration(labelled, tokenizer(), label_field="number")
    with pytest.raises(CalibrationError, match=r"no field 'y' \(it holds: text, number, name\); see --label-field"):
        load_calibration(labelled, tokenizer(), packing="rows", label_field="y")
    (tmp_path / "a.txt").write_text("good")
    with pytest.raises(CalibrationError, match="plain text, which has no label field 'y'"):
        load_calibration(tmp_path / "a.txt", tokenizer(), packing="rows", label_field="y")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"body": "good"}\n\n{"body": "bad", "n": 1}\n'),
        ("a.json", b'{"body": "good"}\n{"body": "bad"}'),
        ("a.txt", b"good\r\n\r\n\r\n\r\nbad\r\n"),
        ("plain", b"good\n\nbad"),
        ("marked.jsonl", b'\xef\xbb\xbf{"body": "good"}\n{"body": "bad"}\n'),
        ("marked.txt", b"\xef\xbb\xbfgood\n\nbad"),
        ("packed.jsonl.gz", gzip.compress(b'{"body": "good"}\n{"body": "bad"}\n', mtime=0)),
        ("packed.txt.gz", gzip.compress(b"good\n\nbad", mtime=0)),
        ("packed.jsonl", gzip.compress(b'\xef\xbb\xbf{"body": "good"}\n{"body": "bad"}\n', mtime=0)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_files_of_each_kind(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    drawn = load_calibration(tmp_path / name, tokenizer("neither"), samples=2, field="body", packing="rows")
    assert sorted(drawn.rows) == [(WORDS.index("good"),), (WORDS.index("bad"),)]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "good"}\n{"text": ', "line 2: not JSON .*column"),
        (
            "a.jsonl",
            b'{"text": "good"}\n\n{"body": "bad", "id": 3}\n',
            r"line 3: no field 'text' \(it holds: body, id\)",
        ),
        ("a.jsonl", b'["good"]\n', "line 1: no field 'text' .*a list"),
        ("a.jsonl", b'{"text": 5}\n', "line 1: .*holds a int, not text"),
        ("a.jsonl", b'{"text": " \\n"}\n', "line 1: .*is empty"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "holds 0 documents"),
        ("a.txt", b"\n\n  \n", "is empty"),
        ("a.jsonl", b'{"text": "caf\xe9"}\n', "not UTF-8"),
        ("a.txt", b"caf\xe9", "not UTF-8"),
        (
            "a.txt.gz",
            gzip.compress(b"good\n\nbad" * 99, mtime=0)[:30],
            "cannot read the calibration file .*end-of-stream",
        ),
        ("a.txt.gz", gzip.compress(b"good", mtime=0)[:-8] + b"12345678", "cannot read the calibration file .*CRC"),
        ("a.jsonl", b'{"text": "good \\ud800"}\n', "line 1"),
        ("a.jsonl", b'{"text": "good", "id": ' + b"1" * 5000 + b"}\n", "line 1"),
        ("a.jsonl", b"[" * 100_000, "line 1"),
    ],
    ids=lambda value: value[:30] if isinstance(value, bytes) else None,
)
def test_a_malformed_file_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CalibrationError, match=said) as caught:
        load_calibration(tmp_path / name, tokenizer(), samples=1, max_length=3, packing="rows")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("pipe.jsonl", '{"text": "good"}\n'), ("pipe", "good")])
def test_a_pipe_is_read_once(tmp_path: Path, name: str, text: str) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    drawn = load_calibration(pipe, tokenizer("neither"), samples=1, packing="rows")
    writer.join()
    assert drawn.rows == ((WORDS.index("good"),),)
    with pytest.raises(CalibrationError, match="is a pipe, which can be read only once; name a file"):
        TextStream(str(pipe), tokenizer("neither"), max_length=8)


def test_a_split_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/train.jsonl").write_text('{"text": "good"}\n')
    with pytest.raises(CalibrationError, match=r"cannot read the data set './texts::tset': .*tset.*train"):
        load_calibration("./texts::tset", tokenizer(), samples=1)


@pytest.mark.parametrize("source", ["absent.jsonl", "absent.txt.gz", "./absent", "/absent/text", "~/absent.txt"])
def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CalibrationError, match=f"{source!r} does not exist"):
        load_calibration(source, tokenizer())


def test_too_few_documents_are_counted(numbered: Path) -> None:
    with pytest.raises(CalibrationError, match=r"holds 12 documents, but 13 are asked for.*--samples"):
        load_calibration(numbered, tokenizer(), samples=13, packing="rows")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the hub: data sets of 10 long documents each; it records what is asked for."""
    seen = SimpleNamespace(calls=[], records=[{"text": "good " * 100}] * 10, error=None)

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Iterator[Any]:
        assert streaming
        seen.calls.append((name, config, split))
        if seen.error:
            raise seen.error
        return iter(seen.records)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return seen


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("someone/text", ("someone/text", None, "train")),
        ("someone/text:raw", ("someone/text", "raw", "train")),
        ("someone/text:raw:test", ("someone/text", "raw", "test")),
        ("someone/text-2.5", ("someone/text-2.5", None, "train")),
    ],
)
def test_a_hub_id_is_taken_apart(hub: SimpleNamespace, source: str, call: tuple[str, str | None, str]) -> None:
    drawn = load_calibration(source, tokenizer(), samples=2, max_length=4)
    assert hub.calls == [call]
    assert drawn.rows == ((BOS, 4, 4, 4),) * 2


def test_a_data_set_is_read_as_far_as_its_rows_need(hub: SimpleNamespace) -> None:
    assert len(load_calibration("someone/text", tokenizer(), samples=8, max_length=4, packing="rows").rows) == 8


def test_a_data_set_has_labels_too(hub: SimpleNamespace) -> None:
    hub.records = [{"text": "good", "label": 1}, {"text": "", "label": None}] * 10
    drawn = load_calibration(
        "someone/text", tokenizer(), samples=8, max_length=4, packing="rows", label_field="label", label2id=ABC
    )
    assert drawn.labels == (1,) * 8


def test_an_unreadable_data_set_is_named(hub: SimpleNamespace) -> None:
    hub.error = ConnectionError("offline\nand so on")
    with pytest.raises(CalibrationError, match=r"cannot read the data set 'someone/text': offline$"):
        load_calibration("someone/text", tokenizer())
    hub.error, hub.records = None, [{"body": "good"}]
    with pytest.raises(CalibrationError, match=r"no field 'text' \(it holds: body\)"):
        load_calibration("someone/text", tokenizer())
    hub.records = [{"text": " "}, {"text": None}]
    with pytest.raises(CalibrationError, match="holds no text"):
        load_calibration("someone/text", tokenizer())
