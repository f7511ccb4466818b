"""Least squares from sums of products, which are added up batch by batch, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from layerimp.errors import NonFiniteError
from layerimp.stats import working_dtype

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 1024
"""How many rows are multiplied at a time. With fewer, writing to the sums would take as long as the products."""


class Gram:
    """The sums of products that a least squares fit of a linear map needs, in float64 on the device of the data.

    The products of `ROWS` rows at a time are computed in the working dtype of `x`: with a ridge, float32 is precise
    enough. They are added in place and in parts, since the sums of a large model have gigabytes.

    The fit minimises  sum_t w_t |y_t - W x_t|^2 + r m |W|^2  over W, where m is the mean of the diagonal of
    sum_t w_t x_t x_t^T, so that the ridge r has no unit.

    Attributes:
        xx: sum_t w_t x_t x_t^T [features, features].
        xy: sum_t w_t x_t y_t^T [features, outputs].
    """

    def __init__(self) -> None:
        self.xx = self.xy = torch.zeros((), dtype=torch.float64)

    def add(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> None:
        """Take in `x` [row, feature] and `y` [row, output], each row with a `weight` [row], by default 1."""
        if not self.xx.ndim:
            self.xx = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
            self.xy = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
        weights = torch.ones(len(x), device=x.device) if weight is None else weight
        dtype = working_dtype(x.dtype)
        for start in range(0, len(x), ROWS):
            wide, out, w = (values[start : start + ROWS].to(dtype) for values in (x, y, weights[:, None]))
            weighted = (wide * w).T
            for sums, factor in ((self.xx, wide), (self.xy, out)):
                for part, left in zip(sums.split(ROWS), weighted.split(ROWS), strict=True):
                    part += left @ factor

    def solve(self, ridge: float) -> Tensor:
        """Return the map W [output, feature] that fits best with a ridge, in float64.

        Args:
            ridge: The ridge, relative to the mean of the diagonal of `xx`; above 0.

        Raises:
            NonFiniteError: the sums hold a NaN, or the ridge is too small for them.
        """
        mean = self.xx.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        damped = self.xx.clone()
        damped.diagonal().add_(ridge * mean)
        factor, wrong = torch.linalg.cholesky_ex(damped)
        if wrong:
            raise NonFiniteError(f"a least squares fit with a ridge of {ridge:.2g} has no solution")
        return torch.cholesky_solve(self.xy, factor).T.contiguous()
