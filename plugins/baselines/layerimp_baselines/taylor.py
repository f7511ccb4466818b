"""Taylor importance: how much the loss would move if a block's weights were set to zero, to first order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from layerimp import Importance, Scorer
from layerimp.stats import working_dtype
from layerimp.sweep import Backward

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.sweep import Trace


class Taylor(Scorer):
    """Sum over a block's weights of the magnitude of weight times gradient, the gradient summed over the whole set.

    Memory: one gradient per block parameter with two dimensions or more, in float32 at least.
    """

    name = "taylor"
    reference = "Ma et al. 2023 (LLM-Pruner), arXiv:2305.11627; Kim et al. 2024 (Shortened LLaMA), arXiv:2402.02834"
    sweep = Backward(parameters=True)
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self._parameters: list[dict[str, Tensor]] = [{} for _ in range(num_blocks)]
        self._gradients: list[dict[str, Tensor]] = [{} for _ in range(num_blocks)]
        self._targets = [0] * num_blocks

    def update(self, trace: Trace) -> None:
        """Add up one block's gradients in one batch."""
        assert trace.targets is not None
        self._targets[trace.block] += len(trace.targets)
        for name, (parameter, gradient) in trace.gradients.items():
            self._parameters[trace.block][name] = parameter
            self._add(trace.block, name, gradient)

    def _add(self, block: int, name: str, gradient: Tensor) -> None:
        sums = self._gradients[block]
        if name in sums:
            sums[name] += gradient.to(sums[name].device)
        else:
            sums[name] = gradient.to(working_dtype(gradient.dtype), copy=True)

    def merge(self, other: Self) -> None:
        """Absorb another shard's gradients."""
        for block, count in enumerate(other._targets):
            self._targets[block] += count
            self._parameters[block] |= other._parameters[block]
            for name, gradient in other._gradients[block].items():
                self._add(block, name, gradient)

    def compute(self) -> Importance:
        """The sums per target."""
        return Importance(scores=[self._score(block) for block in range(self.num_blocks)])

    def _score(self, block: int) -> float:
        total = 0.0
        for name, gradient in self._gradients[block].items():
            product = gradient * self._parameters[block][name].to(gradient.device)
            total += float(torch.linalg.vector_norm(product, ord=1, dtype=torch.float64))
        return total / self._targets[block]
