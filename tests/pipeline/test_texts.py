"""The texts that a recipe names, and what is said of them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from support.heard import Heard
from support.recipes import make_recipe
from transformers import PreTrainedModel

from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import CalibrationSet, Corpus
from layerimp.fidelity import Fidelity, Generation, Sample
from layerimp.models.discovery import find_blocks
from layerimp.pipeline.stages import Loaded
from layerimp.pipeline.texts import Texts, publishable
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


@pytest.mark.parametrize(("source", "shown"), [("prose", 1), ("starter", 1), ("own.jsonl", 0)])
def test_only_prompts_of_text_that_ships_are_published(source: str, shown: int) -> None:
    sample = Sample(prompt="one", chat=False, intact="two", text="three")
    generation = Generation(same_tokens=1, empty=0, loops=0, intact_empty=0, intact_loops=0, samples=[sample])
    text = CalibrationSet(((1, 2),), 8, source)
    assert len(publishable(Fidelity(generation=generation), text)) == shown
    assert not publishable(Fidelity(), text)
    assert not publishable(None, None)
