"""A pruner that breaks its contract is named in one line."""

from __future__ import annotations

from typing import Any

import pytest
from layerimp_step import Step
from support.fake_plugins import Install, Plug
from support.mood import Run

import layerimp
from layerimp import Pruner


class Spendthrift(Pruner):
    """Removes too much."""

    name = "bad"

    def plan(self, scoring: Any, budget: Any) -> Any:
        return layerimp.PrunePlan(num_blocks=budget.num_blocks, blocks=list(range(budget.count + 1)))


class Planless(Pruner):
    """Gives no plan."""

    name = "bad"

    def plan(self, scoring: Any, budget: Any) -> Any:
        return scoring(()).weakest_first()[: budget.count]


class Stumbling(Pruner):
    """Raises."""

    name = "bad"

    def plan(self, scoring: Any, budget: Any) -> Any:
        return [][0]


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Spendthrift, ": it broke its budget: 1 block, got [0, 1]"),
        (Planless, ": plan() gives list, not a PrunePlan"),
        (Stumbling, " failed on the scores of step: IndexError: list index out of range"),
    ],
)
def test_a_pruner_is_named(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object], cls: type[Pruner], said: str
) -> None:
    bad = install("bad", dist="layerimp-b", layerimp_pruners=lambda: [cls])
    plugged(install("step", layerimp_scorers=lambda: [Step]), bad)
    code, _, err = layerimp_command("run", *scoring, "--tasks", "none", "--scorer", "step", "--pruner", "bad")
    assert code == 2
    assert err.splitlines()[-1].startswith(f"layerimp: pruner 'bad' (layerimp-b 1.2){said}")
