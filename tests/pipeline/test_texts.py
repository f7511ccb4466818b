"""The texts that a recipe names, and what is said of them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from support.heard import Heard
from support.recipes import make_recipe
from transformers import PreTrainedModel

from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import Corpus
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.stages import Loaded
from layerimp.pipeline.texts import Texts
from layerimp.recipe import Permissions
from layerimp.testing import tiny_classifier, tiny_model, tiny_tokenizer


@pytest.mark.parametrize(("make", "most"), [(tiny_model, 32), (tiny_classifier, 128)])
def test_too_few_rows_to_judge_by_are_told(make: Any, most: int) -> None:
    """Half of the documents that nothing else reads are there to judge by."""
    model, tokenizer = cast("PreTrainedModel", make()), tiny_tokenizer()
    loaded = Loaded(model, tokenizer, find_blocks(model))
    form = RowFormat(tokenizer, max_length=16, batch_size=4, packing="rows")
    for rows in (most - 1, most):
        notes = Heard()
        texts = Texts(make_recipe({"model": "m", "count": 1}), loaded, Permissions(), notes)
        documents: list[Any] = [(f"w{number} w{number // 90} good", None) for number in range(2 * rows)]
        judging = texts.for_judging(Corpus(documents, "made up", form), frozenset())
        assert len(judging.rows) == rows
        told = f"what healing keeps is decided by {rows} rows, not by {most} of other documents: made up has too few"
        assert notes.lines == ([told] if rows < most else [])
