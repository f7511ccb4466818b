"""Checkpoints to read block by block, and the scores of their blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerimp import Importance, Scorer
from layerimp.blocks import BlockStack
from layerimp.registry.attribution import create
from layerimp.scoring.engine import measure
from layerimp.stats import Mean
from layerimp.sweep import Forward
from layerimp.testing import batch, padded_batch

SCORERS = ("avss", "block-influence", "angular", "relative-magnitude")
TEXT = [padded_batch((3, 7, 5)), batch(), padded_batch((6, 2))]


class Busiest(Scorer):
    """How often a block adds the most to a batch, which is known only when the batch is through."""

    name = "busiest"
    sweep = Forward()
    observes = frozenset({"block_in", "block_out"})

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.added: dict[int, list[float]] = {}
        self.wins = [0] * num_blocks

    def update(self, trace: Any) -> None:
        added = trace.rows("block_out") - trace.rows("block_in")
        self.added.setdefault(trace.batch, [0.0] * self.num_blocks)[trace.block] += float(added.double().norm())

    def end_sweep(self) -> None:
        for added in self.added.values():
            self.wins[added.index(max(added))] += 1

    def compute(self) -> Importance:
        return Importance(scores=[float(wins) for wins in self.wins])


class Look(Scorer):
    """How far a block is from the input of the block two before it."""

    name = "look"
    sweep = Forward()
    observes = frozenset({"block_out"})
    lookback = 2

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.mean = Mean(num_blocks)

    def update(self, trace: Any) -> None:
        before = trace.inputs[max(0, trace.block - 2)]
        far = (trace.acts["block_out"] - before).norm(dim=-1)
        self.mean.add(trace.block, far[trace.mask])

    def compute(self) -> Importance:
        return Importance(scores=self.mean.value().tolist())


def scores(stack: BlockStack, names: Sequence[str] = SCORERS, text: Any = TEXT, **options: Any) -> dict[str, Any]:
    """What scorers find: by default those above, and the two that look beyond a block and beyond a trace."""
    scorers: dict[str, Any] = {name: create("scorer", name, {}, len(stack)) for name in names}
    if set(names) == set(SCORERS):
        scorers |= {"busiest": Busiest(len(stack)), "look": Look(len(stack))}
    results = measure(stack, text, scorers, **options)
    return {
        name: (importance.scores, importance.columns, importance.spans, importance.notes)
        for name, importance in results.items()
    }
