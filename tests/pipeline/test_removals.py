"""The removals of a run's plans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.recipes import make_recipe

import layerimp
from layerimp.pipeline import pruning


def test_plans_that_remove_the_same_share_one_removal(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, true = [], pruning.prepare

    def counting(stack: Any, blocks: Any) -> Any:
        prepared.append(list(blocks))
        return true(stack, blocks)

    monkeypatch.setattr(pruning, "prepare", counting)
    scorers = {"depth": {}, "again": {"name": "depth"}}
    asked = {"model": str(model_dir), "scorers": scorers, "baselines": [], "tasks": [], "count": 1}
    results = layerimp.run(
        make_recipe({**asked, "evaluators": ["footprint"], "calibration": {"samples": 4, "max_length": 16}})
    )
    assert len(prepared) == 1
    assert results.model.plans["again"].blocks == results.model.plans["depth"].blocks == prepared[0]
    assert results.model.pruned["again"].size == results.model.pruned["depth"].size
