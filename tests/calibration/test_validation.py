"""Input that is not a batch is refused with the way to make one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from support.tiny import tiny

import layerimp
from layerimp.errors import CalibrationError
from layerimp.testing import padded_batch


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
        ([{"input_ids": torch.ones(0, 5).long()}], "batch 0: input_ids [0, 5] hold no token"),
        ([{"input_ids": torch.ones(2, 0).long()}], "batch 0: input_ids [2, 0] hold no token"),
        ([{"input_ids": torch.ones(2, 5)}], "batch 0: input_ids of float32 are no token ids"),
    ],
)
def test_what_is_no_batch_is_told_how_to_become_one(text: Any, said: str) -> None:
    with pytest.raises(CalibrationError, match=re.escape(said)):
        layerimp.score(tiny("llama"), text, ["avss"])


@pytest.mark.parametrize("name", ["avss", "perplexity", "gbis"])
def test_other_kinds_of_numbers_are_the_same_batch(name: str) -> None:
    model, inputs = tiny("llama"), padded_batch()
    expected = layerimp.score(model, [inputs], [name])[name].scores
    other = {"input_ids": inputs["input_ids"].int(), "attention_mask": inputs["attention_mask"].float()}
    assert layerimp.score(model, [other], [name])[name].scores == expected
