"""Further text: what was read of it, and what is left out."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from layerimp.calibration.documents import Reader, documents_in, is_dataset
from layerimp.calibration.further_text import FurtherText
from layerimp.calibration.sampling import document_hash
from layerimp.testing import tiny_tokenizer

TEXTS = [f"the cat was {word} and it ran and the dog was {word} and it ran" for word in ("big", "small", "red")]


@pytest.fixture
def text(tmp_path: Path) -> FurtherText:
    path = tmp_path / "more.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    return FurtherText(str(path), tiny_tokenizer(), max_length=8, batch_size=1, packing="rows")


def test_the_longest_reading_counts(text: FurtherText) -> None:
    assert text.read.count == 0
    list(islice(text, 2))
    assert text.read.count == 2
    list(islice(text, 1))
    assert text.read.count == 2
    assert text.documents == set(map(document_hash, TEXTS))
    assert text.read.count == 2  # that was for no training
    list(text)
    assert text.read.count == 3
    assert text.read.hexdigest == hashlib.sha256("".join(map(document_hash, TEXTS)).encode()).hexdigest()


def test_more_can_be_left_out(text: FurtherText) -> None:
    before = text.fingerprint
    text.leave_out({document_hash(TEXTS[0])})
    assert text.documents == set(map(document_hash, TEXTS[1:]))
    assert text.fingerprint != before


def test_a_data_set_may_be_of_a_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("datasets.load_dataset", lambda *names, **how: (asked.append((names, how)), [{"text": "a"}])[1])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hub").write_text("a file of this name is not the text `hub`")
    for source in ("org/name@abc:part:test", "org/name", "hub"):
        assert is_dataset(source)
        assert list(documents_in(source, Reader("text"))) == [("a", None)]
    assert asked[:2] == [
        (("org/name", "part"), {"split": "test", "streaming": True, "revision": "abc"}),
        (("org/name", None), {"split": "train", "streaming": True}),
    ]
    assert asked[2][0] == ("HuggingFaceFW/fineweb-edu", "sample-10BT")
