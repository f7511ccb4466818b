"""The check that offloading changes nothing, with a scorer of batches that keeps the contract, and one not."""

from __future__ import annotations

from typing import Any

import pytest
from layerimp_step import Step

from layerimp import Importance
from layerimp.testing import ContractError, checks_of


class Loudest(Step):
    """Scores by the batch in which a block added the most."""

    name = "loudest"

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.added: dict[int, list[float]] = {}

    def update(self, trace: Any) -> None:
        added = (trace.rows("block_out") - trace.rows("block_in")).norm(dim=-1)
        self.added.setdefault(trace.batch, [0.0] * self.num_blocks)[trace.block] += float(added.sum())

    def merge(self, other: Any) -> None:
        raise NotImplementedError

    def compute(self) -> Importance:
        return Importance(scores=[max(of_block) for of_block in zip(*self.added.values(), strict=True)])


class HastyLoudest(Loudest):
    """Takes the last block for the end of a batch."""

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.now, self.most = [0.0] * num_blocks, [0.0] * num_blocks

    def update(self, trace: Any) -> None:
        added = (trace.rows("block_out") - trace.rows("block_in")).norm(dim=-1)
        self.now[trace.block] += float(added.sum())
        if trace.block == self.num_blocks - 1:
            self.most = [max(pair) for pair in zip(self.most, self.now, strict=True)]
            self.now = [0.0] * self.num_blocks

    def compute(self) -> Importance:
        return Importance(scores=list(self.most))


def check(scorer: type[Step]) -> None:
    next(contract for contract in checks_of(scorer) if contract.name == "offloading changes nothing")()


def test_a_scorer_of_batches_keeps_the_contract() -> None:
    check(Loudest)


def test_a_scorer_that_takes_the_last_block_for_the_end_of_a_batch_breaks_the_contract() -> None:
    with pytest.raises(ContractError, match="when all batches pass through a block before the next block"):
        check(HastyLoudest)


def test_other_sweeps_are_not_offloaded() -> None:
    from layerimp.registry.catalog import registry

    names = {contract.name for contract in checks_of(registry().get("scorer", "gbis"))}
    assert "offloading changes nothing" not in names
