"""The angle between hidden states, computed without the cancellation in 1 - cos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from layerimp.stats import Workspace, working_dtype

if TYPE_CHECKING:
    from torch import Tensor


def one_minus_cosine(x: Tensor, y: Tensor, workspace: Workspace | None = None) -> Tensor:
    """Return 1 - cos of each pair of rows [row, feature] -> [row], as half the squared distance of the unit vectors.

    The distance of the unit vectors is the distance of y from x rescaled to the length of y, over that length. So one
    temporary vector per row is enough, which is in `workspace`. The result is exactly 0 for equal rows, in any dtype,
    and 1/2 if exactly one of the two rows is 0.
    """
    x, y = (rows.to(working_dtype(rows.dtype)) for rows in (x, y))
    length, other = (torch.linalg.vector_norm(rows, dim=-1) for rows in (y, x))
    scale = torch.where(other > 0, length / other, 0).unsqueeze(-1)
    apart = torch.addcmul(y, x, scale, value=-1, out=(workspace or Workspace()).like(y))
    half = (torch.linalg.vector_norm(apart, dim=-1) / length).square() / 2
    return torch.where(length > 0, half, (other > 0) / 2)


def angle(x: Tensor, y: Tensor) -> Tensor:
    """Return the angle in radians between each pair of rows [row, feature] -> [row]; exactly 0 for equal rows."""
    start, end = _unit(x), _unit(y)
    apart, together = (torch.linalg.vector_norm(v, dim=-1) for v in (start - end, start + end))
    return 2 * torch.atan2(apart, together)


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = normalize(rows.to(working_dtype(rows.dtype)), dim=-1, eps=torch.finfo(torch.float32).tiny)
    return unit
