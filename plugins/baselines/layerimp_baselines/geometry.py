"""How far two hidden states point apart, without the cancellation of 1 - cos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from layerimp.stats import Workspace, working_dtype

if TYPE_CHECKING:
    from torch import Tensor


def one_minus_cosine(x: Tensor, y: Tensor, workspace: Workspace | None = None) -> Tensor:
    """1 - cos of each pair of rows [row, feature] -> [row], as half the squared distance of the unit vectors.

    That is the distance of y from x at the length of y, over that length, so that one vector a row is enough to work
    with, which lies in `workspace`. Exactly 0 for equal rows, in any dtype; 1/2 where one row of the two is 0.
    """
    x, y = (rows.to(working_dtype(rows.dtype)) for rows in (x, y))
    length, other = (torch.linalg.vector_norm(rows, dim=-1) for rows in (y, x))
    scale = torch.where(other > 0, length / other, 0).unsqueeze(-1)
    apart = torch.addcmul(y, x, scale, value=-1, out=(workspace or Workspace()).like(y))
    half = (torch.linalg.vector_norm(apart, dim=-1) / length).square() / 2
    return torch.where(length > 0, half, (other > 0) / 2)


def angle(x: Tensor, y: Tensor) -> Tensor:
    """The angle in radians between each pair of rows [row, feature] -> [row]; exactly 0 for equal rows."""
    one, other = _unit(x), _unit(y)
    apart, together = (torch.linalg.vector_norm(v, dim=-1) for v in (one - other, one + other))
    return 2 * torch.atan2(apart, together)


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = normalize(rows.to(working_dtype(rows.dtype)), dim=-1, eps=torch.finfo(torch.float32).tiny)
    return unit
