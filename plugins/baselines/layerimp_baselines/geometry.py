"""How far two hidden states point apart, without the cancellation of 1 - cos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from layerimp.stats import working_dtype

if TYPE_CHECKING:
    from torch import Tensor


def one_minus_cosine(x: Tensor, y: Tensor) -> Tensor:
    """1 - cos of each pair of rows [row, feature] -> [row], as half the squared distance of the unit vectors.

    Exactly 0 for equal rows, in any dtype.
    """
    half: Tensor = torch.linalg.vector_norm(_unit(x) - _unit(y), dim=-1).square() / 2
    return half


def angle(x: Tensor, y: Tensor) -> Tensor:
    """The angle in radians between each pair of rows [row, feature] -> [row]; exactly 0 for equal rows."""
    one, other = _unit(x), _unit(y)
    apart, together = (torch.linalg.vector_norm(v, dim=-1) for v in (one - other, one + other))
    return 2 * torch.atan2(apart, together)


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = normalize(rows.to(working_dtype(rows.dtype)), dim=-1, eps=torch.finfo(torch.float32).tiny)
    return unit
