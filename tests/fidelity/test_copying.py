"""Rows whose second half repeats the first: built as a loop would, and measured on a model that can only copy."""

from __future__ import annotations

import copy

import pytest
import torch
from support.tiny import tiny

import layerimp
from layerimp.fidelity.copying import repeated
from layerimp.fidelity.intact import Intact
from layerimp.fidelity.record import Copying
from layerimp.testing import padded_batch

BOS, EOS, PAD = 1, 2, 0


def text(*rows: list[int]) -> dict[str, torch.Tensor]:
    length = max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def made(inputs: dict[str, torch.Tensor], longest: int | None = None) -> list[tuple[list[int], list[int]]]:
    """The rows, and at which positions something is predicted."""
    rows = []
    for batch, mask in repeated([inputs], {BOS, EOS, PAD}, longest):
        for ids, real, wanted in zip(batch["input_ids"], batch["attention_mask"].bool(), mask, strict=True):
            assert not wanted[~real].any()
            rows.append((ids[real].tolist(), wanted.nonzero().flatten().tolist()))
    return rows


def test_rows_repeat_the_first_half_of_their_own_tokens() -> None:
    own = list(range(10, 27))  # 17 tokens, of which the last is left out
    spread = [BOS, *own[:5], EOS, *own[5:], EOS]
    ((row, wanted),) = made(text(spread))
    assert row == [BOS, *own[:8], *own[:8]]
    assert [row[place + 1] for place in wanted] == own[:8]
    assert wanted[0] == 8  # the last token of the first half predicts the first token of the second


def test_short_rows_are_left_out_and_the_others_padded() -> None:
    rows = made(text([BOS, *range(10, 30)], [BOS, *range(10, 20)], list(range(40, 56))))
    assert [row for row, _ in rows] == [[BOS, *range(10, 20), *range(10, 20)], [*range(40, 48), *range(40, 48)]]
    assert made(text([BOS, EOS, 5])) == []


@pytest.mark.parametrize("longest", [17, 20, 21])
def test_no_row_is_longer_than_the_model(longest: int) -> None:
    ((row, wanted),) = made(text([BOS, *range(10, 60)]), longest)
    half = (longest - 1) // 2
    assert row == [BOS, *range(10, 10 + half), *range(10, 10 + half)]
    assert len(wanted) == half


def test_accuracy_is_that_of_a_loop_over_the_second_halves() -> None:
    intact = tiny()
    other = layerimp.prune(copy.deepcopy(intact), [1])
    batches, masks = zip(*repeated([padded_batch((40, 5, 31))], {PAD}), strict=True)
    divergence = Intact(layerimp.find_blocks(intact), batches, masks=masks).divergence(layerimp.find_blocks(other))
    right: list[list[bool]] = [[], []]
    for model, hits in zip((intact, other), right, strict=True):
        for ids, real in zip(batches[0]["input_ids"], batches[0]["attention_mask"].sum(dim=1).tolist(), strict=True):
            row = ids[:real]
            top = model(input_ids=row[None]).logits[0].argmax(dim=-1)
            hits += [int(top[place - 1]) == int(row[place]) for place in range(real // 2, real)]
    copying = Copying.of(divergence)
    assert copying.intact == pytest.approx(sum(right[0]) / len(right[0]))
    assert copying.accuracy == pytest.approx(sum(right[1]) / len(right[1]))
    assert divergence.count == len(right[0]) == 20 + 15
    assert copying.divergence == divergence.mean > 0
