"""Input that is not a batch is refused with the way to make one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from support.tiny import tiny

import layerimp
from layerimp.errors import CalibrationError


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
