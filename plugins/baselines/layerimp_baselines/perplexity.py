"""The scorer `perplexity`: the rise of the loss when one block is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from layerimp import Importance, Scorer
from layerimp.stats import Mean
from layerimp.sweep import Ablation

if TYPE_CHECKING:
    from layerimp.sweep import Trace


class Perplexity(Scorer):
    """Rise of the negative log-likelihood per target, in nats, when the block is left out."""

    name = "perplexity"
    reference = "leave one out; greedily, block by block: Song et al. 2024 (SLEB), arXiv:2402.09025"
    sweep = Ablation(frozenset({0.0}))
    observes = frozenset({Ablation.INTACT, Ablation.site(0)})
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self._rise = Mean(num_blocks)
        self._without = Mean(num_blocks)

    def update(self, trace: Trace) -> None:
        """Add the targets' log-probabilities [batch, position] with and without one block."""
        intact, without = (trace.rows(site).double() for site in (Ablation.INTACT, Ablation.site(0)))
        self._rise.add(trace.block, intact - without)
        self._without.add(trace.block, -without)

    def compute(self) -> Importance:
        """Return the rise of the loss.

        A column holds the perplexity without each block, and a note the perplexity of the intact model.
        """
        rise, without = self._rise.value(), self._without.value()
        intact = without[0] - rise[0]
        most = torch.finfo(without.dtype).max
        return Importance(
            scores=rise.tolist(),
            columns={"perplexity_without": without.exp().clamp_max(most).tolist()},
            notes=[f"perplexity of the intact model: {float(intact.exp()):.6g} ({float(intact):.4g} nats per target)"],
        )
