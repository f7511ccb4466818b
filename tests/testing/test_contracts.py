"""Every component that ships keeps the contracts that third parties check."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.mood import mood

from layerimp.registry.catalog import registry
from layerimp.testing import Check, checks_of, parametrize

SHIPPED = {
    kind: [registry().get(kind, name) for name in registry().names(kind)] for kind in ("scorer", "pruner", "healer")
}
DISTILL = registry().get("healer", "distill")
SHIPPED["healer"].remove(DISTILL)
FIDELITY = registry().get("evaluator", "fidelity")
SHIPPED["evaluator"] = [
    registry().get("evaluator", "footprint"),
    FIDELITY(FIDELITY.Config(prompts=3, new_tokens=20)),
]


@parametrize(*(component for components in SHIPPED.values() for component in components))
def test_what_ships_keeps_its_contracts(check: Check) -> None:
    check()


@pytest.mark.slow
@parametrize(DISTILL(DISTILL.Config(steps=3, checks=3)))
def test_distill_keeps_its_contracts(check: Check) -> None:
    check()


def test_the_harness_keeps_its_contracts(tmp_path: Path) -> None:
    harness = registry().get("evaluator", "harness")
    for check in checks_of(harness(harness.Config(tasks=[str(mood(tmp_path))], limit=4))):
        check()
