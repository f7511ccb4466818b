"""Describes in words how the sizes of pruned models compare with the targets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from layerimp.sizes.targets import UNITS

if TYPE_CHECKING:
    from layerimp.sizes.targets import Reached


def amount(value: float | None) -> str:
    """Show a size, with all digits if it is counted; `-` if it is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.3g}"


def asked(one: Reached) -> str:
    """Show the target, such as `bytes=6GB: at most 6,000,000,000 bytes`."""
    quantity = one.target.quantity
    factor = f", {one.target.asked} of {amount(one.original)}" if one.target.factor else ""
    limit = amount(math.floor(one.limit) if one.limit >= 1000 else one.limit)
    return f"{one.target}: at most {limit} {UNITS[quantity]}{factor}"


def got(one: Reached) -> str:
    """Show the value reached, and the standard error of a measured value."""
    return amount(one.value) if one.stderr is None else f"{amount(one.value)} ± {amount(one.stderr)}"


def stood(one: Reached) -> str:
    """Show the target, the value reached, and the values with one step less or more."""
    measured = ", measured" if one.target.quantity == "latency" else ""
    return f"{asked(one)}; reached {got(one)}{measured}; one step less {amount(one.less)}, one more {amount(one.more)}"
