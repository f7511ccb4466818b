"""Healing on text with images: the intact model teaches on what both models see, and gaps are read there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import seeing
from support.healing_cases import case_of

from layerimp.blocks.modalities import image_token
from layerimp.healer import Case
from layerimp.healing import Teaching
from layerimp.healing.states import states


@pytest.fixture(scope="module", params=seeing.KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A model without block 2 beside the intact one, and text with images."""
    directory: Path = tmp_path_factory.mktemp(request.param)
    model = seeing.save(directory, request.param)
    text = seeing.rows_of_texts(directory, model)
    return case_of(model, [2], text)


def seeing_rows(case: Case) -> list[dict[str, Any]]:
    return [batch for batch in case.batches if "pixel_values" in batch]


def test_the_lesson_is_the_divergence_of_whole_logits(case: Case) -> None:
    weight = next(value for value in case.pruned[0].parameters() if value.ndim == 2)
    for batch in seeing_rows(case):
        lesson, count = Teaching(case).divergence(batch)
        places = seeing.predicted(batch["input_ids"][0], int(image_token(case.intact.model.config) or 0))
        with torch.no_grad():
            p = case.intact.model(**batch).logits[0, places].log_softmax(-1)
        q = case.pruned.model(**batch).logits[0, places].log_softmax(-1)
        expected = (p.exp() * (p - q)).sum()
        assert count == len(places)
        torch.testing.assert_close(lesson.detach(), expected.detach(), rtol=1e-4, atol=1e-6)
        (slope,), (aim,) = (torch.autograd.grad(each, weight) for each in (lesson, expected))
        torch.testing.assert_close(slope, aim, rtol=1e-3, atol=1e-5)


def test_both_streams_at_a_gap(case: Case) -> None:
    """The stream before block 2, which the pruned model has there, and the one after it in the intact model."""
    read: list[torch.Tensor] = []

    def enter(_block: Any, args: Any, kwargs: Any) -> None:
        read.append(args[0] if args else kwargs["hidden_states"])

    batches = seeing_rows(case)
    (gap,) = case.gaps
    for batch, state in zip(batches, states(case, gap, batches), strict=True):
        read.clear()
        hooks = [case.intact[index].register_forward_pre_hook(enter, with_kwargs=True) for index in (2, 3)]
        with torch.no_grad():
            case.intact.model(**batch)
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(state.stream, read[0][0])
        torch.testing.assert_close(state.target, read[1][0])
