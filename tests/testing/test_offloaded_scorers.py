"""The check that offloading changes nothing, with a scorer of batches that keeps the contract, and one not."""

from __future__ import annotations

from typing import Any

import pytest
from layerimp_step import Step

from layerimp import Importance
from layerimp.testing import ContractError, checks_of


class Loudest(Step):
    """Scores by the batch in which a block added the most, in steps of whole batches."""

    name = "loudest"

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.now, self.most = [0.0] * num_blocks, [0.0] * num_blocks

    def update(self, trace: Any) -> None:
        added = (trace.rows("block_out") - trace.rows("block_in")).norm(dim=-1)
        self.now[trace.block] += float(added.sum())

    def end_batch(self) -> None:
        self.most = [max(pair) for pair in zip(self.most, self.now, strict=True)]
        self.now = [0.0] * self.num_blocks

    def merge(self, other: Any) -> None:
        self.most = [max(pair) for pair in zip(self.most, other.most, strict=True)]

    def compute(self) -> Importance:
        return Importance(scores=list(self.most))


class ForgetfulLoudest(Loudest):
    """Merges nothing."""

    def merge(self, other: Any) -> None:
        pass


def check(scorer: type[Step]) -> None:
    next(one for one in checks_of(scorer) if one.name == "offloading changes nothing")()


def test_a_scorer_of_batches_keeps_the_contract() -> None:
    check(Loudest)


def test_a_scorer_that_does_not_merge_its_batches_breaks_the_contract() -> None:
    with pytest.raises(ContractError, match="when all batches pass through a block before the next block"):
        check(ForgetfulLoudest)


def test_other_sweeps_are_not_offloaded() -> None:
    from layerimp.registry.catalog import registry

    names = {one.name for one in checks_of(registry().get("scorer", "gbis"))}
    assert "offloading changes nothing" not in names
