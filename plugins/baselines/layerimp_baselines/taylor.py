"""The scorer `taylor`: the first-order change of the loss if a block's weights were set to zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from layerimp import Importance, Scorer
from layerimp.stats import working_dtype
from layerimp.sweep import Backward

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.sweep import Trace


class Taylor(Scorer):
    """Sum over a block's weights of the magnitude of weight times gradient, the gradient summed over the whole set.

    The scorer stores one number, in at least float32, for each element of the blocks' weights with two or more
    dimensions.
    """

    name = "taylor"
    reference = "Ma et al. 2023 (LLM-Pruner), arXiv:2305.11627; Kim et al. 2024 (Shortened LLaMA), arXiv:2402.02834"
    sweep = Backward(parameters=True)
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self._products: list[dict[str, Tensor]] = [{} for _ in range(num_blocks)]
        self._targets = [0] * num_blocks

    def update(self, trace: Trace) -> None:
        """Add each weight of a block times its gradient in one batch; the weight is the same in all batches."""
        assert trace.targets is not None
        self._targets[trace.block] += len(trace.targets)
        sums = self._products[trace.block]
        for name, (parameter, gradient) in trace.gradients.items():
            if name not in sums:
                sums[name] = torch.zeros_like(gradient, dtype=working_dtype(gradient.dtype))
            device, dtype = sums[name].device, sums[name].dtype
            sums[name].addcmul_(parameter.to(device, dtype), gradient.to(device, dtype))

    def compute(self) -> Importance:
        """Return the sums of the magnitudes, per target."""
        sums = [sum(map(_magnitude, products.values())) for products in self._products]
        return Importance(scores=[total / count for total, count in zip(sums, self._targets, strict=True)])


def _magnitude(product: Tensor) -> float:
    return float(torch.linalg.vector_norm(product, ord=1, dtype=torch.float64))
