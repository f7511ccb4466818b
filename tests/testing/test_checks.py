"""The checks that third parties run can fail: for each check there is a component that breaks the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import reference
from layerimp_baselines import Perplexity
from layerimp_step import Step
from support.broken_evaluators import WRONG_EVALUATORS, Empty, Parameters
from support.broken_healers import WRONG_HEALERS, Idle
from support.broken_pruners import WRONG_PRUNERS, Deepest, Spendthrift
from support.broken_scorers import WRONG_SCORERS, PerBatch

import layerimp
from layerimp import Scorer
from layerimp.component import Component
from layerimp.errors import ModelError, PluginError
from layerimp.registry.catalog import Registry
from layerimp.registry.loader import PluginHost
from layerimp.sweep import Forward
from layerimp.testing import (
    ContractError,
    check_component,
    checks_of,
    parametrize,
)

ROOT = Path(layerimp.__file__).parents[1]


WRONG: list[tuple[type[Component], str, str]] = [
    *WRONG_SCORERS,
    *WRONG_PRUNERS,
    *WRONG_EVALUATORS,
    *WRONG_HEALERS,
]


@pytest.mark.parametrize(("component", "contract", "said"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_contract_is_told(component: type[Component], contract: str, said: str) -> None:
    (check,) = [check for check in checks_of(component) if check.name == contract]
    with pytest.raises(
        ContractError, match=f"breaks the contract '{contract}': .*{said}.* \\(see '{contract}' on the page"
    ):
        check()


@parametrize(Deepest, Parameters)
def test_what_is_right_passes(check: Any) -> None:
    """Scorers and healers that are right are checked beside the plugins that hold them."""
    check()


@pytest.mark.slow
@parametrize(Idle)
def test_a_healer_that_does_nothing_passes(check: Any) -> None:
    check()


def test_every_check_can_fail_and_is_explained() -> None:
    names = {check.name for good in (Step, Perplexity, Deepest, Idle, Parameters) for check in checks_of(good)}
    assert {contract for _, contract, _ in WRONG} == names
    page = reference.expanded((ROOT / "docs" / "extend" / "testing.md").read_text())
    headings = {heading.lower() for heading in re.findall(r"^### (.*)$", page, re.MULTILINE)}
    assert headings == {name.lower() for name in names}


def test_all_checks_at_once() -> None:
    check_component(Deepest)
    with pytest.raises(ContractError, match="'batch size changes nothing'"):
        check_component(PerBatch)
    with pytest.raises(ContractError, match="'the budget is kept'"):
        check_component(Spendthrift())
    with pytest.raises(ContractError, match="'metrics are sound'"):
        check_component(Empty())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"name": ""}, "Fault has no name"),
        ({"compute": Scorer.compute}, "Fault lacks compute"),
        ({"sweep": Forward}, r"Fault.sweep is a class; write Forward\(\)"),
        ({"observes": "block_in"}, r"Fault.observes is a text; write frozenset\(\{'block_in'\}\)"),
        (
            {"observes": {"blok_in"}},
            r"Fault observes an unknown site 'blok_in' of the sweep Forward. Did you mean 'block_in'",
        ),
    ],
)
def test_a_class_that_is_not_whole_is_told_at_once(body: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        checks_of(type("Fault", (Step,), body))
    with pytest.raises(PluginError, match=said):
        Registry(PluginHost([], blocked=()))._checked("scorer", [type("Fault", (Step,), body)])


def test_a_refusal_is_no_breach() -> None:
    class Choosy(Step):
        """Refuses encoders."""

        def update(self, trace: Any) -> None:
            if not trace.acts["block_in"].is_floating_point():
                raise AssertionError
            super().update(trace)

        def end_sweep(self) -> None:
            raise ModelError("no encoders, please")

    check = next(check for check in checks_of(Choosy) if check.name.startswith("other architectures"))
    check()
