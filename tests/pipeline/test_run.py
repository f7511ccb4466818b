"""What stages read, and what they return."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from support.tiny import tiny

import layerimp
from layerimp import PrunePlan
from layerimp.pipeline.run import CutModel, Run, StageResults
from layerimp.report.results.contenders import Contender
from layerimp.report.results.models import Size
from layerimp.surgery.removal import prepare


def pruned(blocks: list[int], healer: str = "") -> CutModel:
    """A pruned model of six blocks."""
    removal = prepare(layerimp.find_blocks(tiny("llama", num_hidden_layers=6)), blocks)
    plan, size = PrunePlan(num_blocks=6, blocks=blocks), Size(blocks=6, parameters=1, bytes=1)
    return CutModel(Contender("avss", healer), plan, size, removal)


def test_equal_removals_are_one_model() -> None:
    assert pruned([1, 5]).key == pruned([5, 1]).key != pruned([5, 2]).key
    assert pruned([5], "linear").key == pruned([5], "linear").key != pruned([5], "rescale").key


def test_a_model_is_in_place_for_as_long_as_it_is_used() -> None:
    model = pruned([5, 1])
    intact = model.removal.stack.model
    with model.in_place() as shorter:
        assert shorter is intact
        assert len(layerimp.find_blocks(shorter)) == 4
    assert len(layerimp.find_blocks(intact)) == 6
    other: Any = object()
    with CutModel(model.contender, model.plan, model.size, model.removal, other).in_place() as beside:
        assert beside is other


@pytest.mark.parametrize("cls", [Run, CutModel, StageResults])
def test_nothing_is_filled_in_from_afar(cls: type) -> None:
    names = cls.__dataclass_fields__  # type: ignore[attr-defined]
    made = object.__new__(cls)
    for name in names:
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, None)
