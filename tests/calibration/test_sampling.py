"""Text becomes rows as promised, or leads to one clear error."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.framed import FRAMES, tokenizer
from tokenizers import normalizers

from layerimp.calibration import CalibrationSet, load_calibration
from layerimp.errors import CalibrationError
from layerimp.testing import tiny_tokenizer
from layerimp.testing.tiny import WORDS


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
def test_windows_reproduce_the_tokens(frame: str, lengths: list[int], max_length: int, seed: int) -> None:
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
    tokens = [token for index in order for token in [*documents[index], *end]]
    assert inner == tokens[: len(inner)]


@pytest.mark.parametrize("frame", FRAMES)
def test_rows_hold_one_document_each(numbered: Path, frame: str) -> None:
    before, after, _ = FRAMES[frame]
    drawn = load_calibration(numbered, tokenizer(frame), samples=12, max_length=8, packing="rows")
    room = 8 - len(before) - len(after)
    expected = [(*before, *[len(WORDS) + i] * min(i + 1, room), *after) for i in range(12)]
    assert sorted(drawn.rows) == sorted(expected)
    assert drawn.description.tokens == sum(map(len, expected))


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


@pytest.mark.parametrize("packing", ["windows", "rows"])
def test_the_first_rows_are_those_of_a_smaller_draw(numbered: Path, packing: Any) -> None:
    def load(samples: int) -> CalibrationSet:
        return load_calibration(numbered, tokenizer(), samples=samples, max_length=9, seed=3, packing=packing)

    assert load(7).first(3) == load(3)
    assert load(7).first(9) == load(7)


def test_draws_of_everything_have_one_fingerprint(numbered: Path) -> None:
    """Each seed shuffles, and the order changes no score."""
    drawn = [load_calibration(numbered, tokenizer(), samples=12, packing="rows", seed=seed) for seed in (0, 1)]
    assert drawn[0].rows != drawn[1].rows
    assert drawn[0].fingerprint == drawn[1].fingerprint


def test_the_fingerprint_follows_the_tokens_only(numbered: Path) -> None:
    def load(**changes: Any) -> CalibrationSet:
        return load_calibration(numbered, tokenizer(), **{"samples": 6, "max_length": 8, **changes})

    first = load()
    assert load().rows == first.rows
    assert load(batch_size=1).fingerprint == first.fingerprint
    others = [load(seed=1), load(samples=5), load(max_length=7), load(packing="rows")]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert first.description.model_dump(mode="json") == {
        "source": str(numbered),
        "rows": 6,
        "tokens": 48,
        "fingerprint": first.fingerprint,
    }


def test_too_few_documents_are_counted(numbered: Path) -> None:
    with pytest.raises(CalibrationError, match=r"holds 12 documents, but 13 are asked for.*--samples"):
        load_calibration(numbered, tokenizer(), samples=13, packing="rows")
