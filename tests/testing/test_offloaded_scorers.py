"""The check that offloading changes nothing, with a scorer of batches that keeps the contract."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

import pytest
from layerimp_step import Step

from layerimp import Importance
from layerimp.testing import checks_of


class Loudest(Step):
    """Scores by the batch in which a block added the most."""

    name = "loudest"

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.added: dict[int, list[float]] = {}

    def update(self, trace: Any) -> None:
        added = (trace.rows("block_out") - trace.rows("block_in")).norm(dim=-1)
        self.added.setdefault(trace.batch, [0.0] * self.num_blocks)[trace.block] += float(added.sum())

    def compute(self) -> Importance:
        return Importance(scores=[max(of_block) for of_block in zip(*self.added.values(), strict=True)])


def test_a_scorer_of_batches_keeps_the_contract() -> None:
    next(contract for contract in checks_of(Loudest) if contract.name == "offloading changes nothing")()


def test_other_sweeps_are_not_offloaded() -> None:
    from layerimp.registry.catalog import registry

    checks = checks_of(registry().get("scorer", "gbis"))
    with pytest.raises(SkipTest, match="does not bind"):
        next(check for check in checks if check.name == "offloading changes nothing")()
