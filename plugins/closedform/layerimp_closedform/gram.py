"""Least squares from sums of products, which are added up batch by batch, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from layerimp.errors import NonFiniteError
from layerimp.stats import chunks, working_dtype

if TYPE_CHECKING:
    from torch import Tensor


class Gram:
    """The sums of products that a least squares fit of a linear map needs, in float64 on the device of the data.

    The products of a few rows at a time are computed in the working dtype of `x`: with a ridge, float32 is precise
    enough.

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
        self.xx, self.xy = self.xx.to(x.device), self.xy.to(x.device)
        weights = torch.ones(len(x), device=x.device) if weight is None else weight
        dtype, start = working_dtype(x.dtype), 0
        for part in chunks(x):
            rows = slice(start, start + len(part))
            start += len(part)
            wide, out, w = (values.to(dtype) for values in (part, y[rows], weights[rows, None]))
            weighted = (wide * w).T
            self.xx = self.xx + (weighted @ wide).double()
            self.xy = self.xy + (weighted @ out).double()

    def solve(self, ridge: float) -> Tensor:
        """Return the map W [output, feature] that fits best with a ridge, in float64.

        Args:
            ridge: The ridge, relative to the mean of the diagonal of `xx`; above 0.

        Raises:
            NonFiniteError: the sums hold a NaN, or the ridge is too small for them.
        """
        mean = self.xx.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        factor, wrong = torch.linalg.cholesky_ex(self.xx + (ridge * mean) * torch.eye(len(self.xx)).to(self.xx))
        if wrong:
            raise NonFiniteError(f"a least squares fit with a ridge of {ridge:.2g} has no solution")
        return torch.cholesky_solve(self.xy, factor).T.contiguous()
