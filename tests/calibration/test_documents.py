"""Files and data sets of each kind are read, or lead to one clear error."""

from __future__ import annotations

import gzip
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.framed import ABC, BOS, tokenizer

from layerimp.calibration import FurtherText, load_calibration
from layerimp.errors import CalibrationError
from layerimp.testing.tiny import WORDS


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
        ("a.jsonl", b'["good"]\n', "line 1: no object with a field 'text', but .* list"),
        ("a.jsonl", b'{"text": 5}\n', "line 1: .*holds a value of type int, not text"),
        ("a.jsonl", b'{"text": " \\n"}\n', "line 1: .*is empty"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "holds 0 documents"),
        ("a.txt", b"\n\n  \n", "is empty"),
        ("a.jsonl", b'{"text": "caf\xe9"}\n', "not UTF-8"),
        ("a.txt", b"caf\xe9", "not UTF-8"),
        (
            "a.txt.gz",
            gzip.compress(b"good\n\nbad" * 99, mtime=0)[:30],
            "cannot read the text file .*end-of-stream",
        ),
        ("a.txt.gz", gzip.compress(b"good", mtime=0)[:-8] + b"12345678", "cannot read the text file .*CRC"),
        ("a.jsonl", b'{"text": "good \\ud800"}\n', "line 1"),
        ("a.jsonl", b'{"text": "good", "id": ' + b"1" * 5000 + b"}\n", "line 1"),
        ("a.jsonl", b"[" * 100_000, "line 1"),
        ("a.JSONL", b"{text}", "line 1: not JSON"),
        (
            "a.jsonl",
            b'{"text": "good", "image": null}\n{"text": "good", "image": "a.png"}\n',
            "a.jsonl, line 2: a row with the field 'image', and only text is read; leave the row out, or the field",
        ),
        ("a.txt", b'{"text": "good"}', "name it .jsonl"),
        (
            "a.csv",
            b"text,label\ngood,1\n",
            r'is a table, .* convert it: pandas\.read_csv\(".*a\.csv"\)\.to_json\("a\.jsonl"',
        ),
        ("a.tsv", b"text\tlabel\n", r'read_csv\(".*a\.tsv", sep="\\t"\)'),
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
        FurtherText(str(pipe), tokenizer("neither"), max_length=8)


def test_a_split_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/train.jsonl").write_text('{"text": "good"}\n')
    with pytest.raises(CalibrationError, match=r"cannot read the data set './texts::tset': .*tset.*train"):
        load_calibration("./texts::tset", tokenizer(), samples=1)


def test_a_folder_at_home_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.jsonl").write_text('{"text": "good"}\n')
    drawn = load_calibration("~/texts", tokenizer("neither"), samples=1, packing="rows")
    assert drawn.rows == ((WORDS.index("good"),),)


@pytest.mark.parametrize(
    "source", ["absent.jsonl", "absent.csv", "absent.txt.gz", "./absent", "/absent/text", "~/absent.txt"]
)
def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CalibrationError, match=f"{source!r} does not exist"):
        load_calibration(source, tokenizer())


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
    hub.records = [{"text": "good", "image": b"pixels"}]
    with pytest.raises(CalibrationError, match="someone/text, row 0: a row with the field 'image', and only text is"):
        load_calibration("someone/text", tokenizer())
    hub.records = [{"text": " "}, {"text": None}]
    with pytest.raises(CalibrationError, match="holds no text"):
        load_calibration("someone/text", tokenizer())
