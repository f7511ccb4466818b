"""Mergeable accumulators with one slot per block, in float64, on the device of the data until they are read.

A fast statistic reads memory only once: rows are processed in chunks that fit the processor's cache, and within a chunk
every operation reuses one buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

CHUNK_ELEMENTS = 1 << 20
"""Elements per chunk: 4 MiB in float32. This also keeps a float32 count within a chunk exact (below 2**24)."""


def chunks(rows: Tensor) -> Iterator[Tensor]:
    """Split `rows` [row, feature] into runs of whole rows of about `CHUNK_ELEMENTS` elements."""
    return iter(torch.split(rows, max(1, CHUNK_ELEMENTS // max(1, rows.shape[-1]))))


class Workspace:
    """A buffer that is allocated once, since a new allocation for each chunk can cost more than the arithmetic.

    A scorer keeps a workspace, and releases it in `end_sweep`.
    """

    def __init__(self) -> None:
        self._memory: Tensor | None = None

    def like(self, chunk: Tensor) -> Tensor:
        """Return a tensor like `chunk` in shape, dtype and device, with any values; the next call overwrites it."""
        kept = self._memory
        if kept is None or kept.numel() < chunk.numel() or (kept.dtype, kept.device) != (chunk.dtype, chunk.device):
            kept = self._memory = torch.empty(chunk.numel(), dtype=chunk.dtype, device=chunk.device)
        return kept[: chunk.numel()].view(chunk.shape)

    def release(self) -> None:
        """Release the memory."""
        self._memory = None


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for arithmetic: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over rows of the inner products of `x` and `y`, both [row, feature], and of their magnitudes.

    Both sums are float64 []. Inner products are computed in the working dtype.
    """
    dtype = torch.promote_types(working_dtype(x.dtype), working_dtype(y.dtype))
    total, magnitude = (torch.zeros((), dtype=torch.float64, device=x.device) for _ in range(2))
    for left, right in zip(chunks(x), chunks(y), strict=True):
        product = left.to(dtype) * right
        total += product.sum(dim=-1).sum(dtype=torch.float64)
        magnitude += product.abs_().sum(dim=-1).sum(dtype=torch.float64)
    return total, magnitude


class Sum:
    """The sum of numbers, per block.

    Args:
        num_blocks: How many blocks.
    """

    def __init__(self, num_blocks: int) -> None:
        self._sums = [torch.zeros((), dtype=torch.float64) for _ in range(num_blocks)]

    def __getitem__(self, block: int) -> Tensor:
        """The sum of a block [], on the device of what was added last."""
        return self._sums[block]

    def add(self, block: int, value: Tensor) -> None:
        """Take in one `value` [] in float64."""
        self._sums[block] = self._sums[block].to(value.device) + value

    def value(self) -> Tensor:
        """The sums [num_blocks], float64 on the CPU; 0 for a block that saw no value."""
        return torch.stack([value.cpu() for value in self._sums])


class Mean:
    """The mean of numbers, per block.

    Args:
        num_blocks: How many blocks.
    """

    def __init__(self, num_blocks: int) -> None:
        self._total = Sum(num_blocks)
        self._count = [0] * num_blocks

    def add(self, block: int, values: Tensor) -> None:
        """Take in `values` of any shape."""
        self.add_total(block, values.sum(dtype=torch.float64), values.numel())

    def add_total(self, block: int, total: Tensor, count: int) -> None:
        """Take in `count` values that sum to `total` [] in float64."""
        self._total.add(block, total)
        self._count[block] += count

    def total(self) -> Tensor:
        """The sums [num_blocks], float64 on the CPU."""
        return self._total.value()

    def value(self) -> Tensor:
        """The means [num_blocks], float64 on the CPU; NaN for a block that saw no value."""
        return self.total() / torch.tensor(self._count, dtype=torch.float64)


class Moments:
    """The population variance of numbers, per block, by the pairwise update of Chan et al. (1979).

    Sums of squares minus squared sums would cancel; (count, mean, M2) do not.

    Args:
        num_blocks: How many blocks.
    """

    def __init__(self, num_blocks: int) -> None:
        self._count = [0] * num_blocks
        self._mean = Sum(num_blocks)
        self._m2 = Sum(num_blocks)

    def add_moments(self, block: int, count: int, mean: Tensor, m2: Tensor) -> None:
        """Take in `count` values of a given mean [] and sum of squared deviations from it [], both float64."""
        before = self._count[block]
        total = before + count
        if not count:
            return
        delta = mean - self._mean[block].to(mean.device)
        self._mean.add(block, delta * (count / total))
        self._m2.add(block, m2 + delta * delta * (before * count / total))
        self._count[block] = total

    def variance(self) -> Tensor:
        """The population variances [num_blocks], float64 on the CPU; NaN for a block that saw no value."""
        return self._m2.value() / torch.tensor(self._count, dtype=torch.float64)
