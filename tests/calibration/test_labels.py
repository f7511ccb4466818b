"""Labels stay with their rows, or lead to one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.framed import ABC, tokenizer

from layerimp.calibration import CalibrationSet, load_calibration
from layerimp.errors import CalibrationError
from layerimp.testing.tiny import WORDS


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Document i contains `w<i>`, and has the label i % 3 as a number and by name."""
    path = tmp_path / "labelled.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"w{i}", "number": i % 3, "name": "abc"[i % 3]}) + "\n" for i in range(12))
    )
    return path


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
    assert drawn.description.labels == {str(i): expected.count(i) for i in sorted(set(expected))}


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
