"""How pruned models stand to the sizes that were asked for, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from layerimp.sizes.targets import UNITS

if TYPE_CHECKING:
    from layerimp.sizes.targets import Reached


def amount(value: float | None) -> str:
    """A size, with all digits where it is counted; `-` where it is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.3g}"


def asked(one: Reached) -> str:
    """What was asked for, such as `bytes=6GB: at most 6,000,000,000 bytes`."""
    quantity = one.target.quantity
    factor = f", {one.target.asked} of {amount(one.original)}" if one.target.factor else ""
    limit = amount(math.floor(one.limit) if one.limit >= 1000 else one.limit)
    return f"{one.target}: at most {limit} {UNITS[quantity]}{factor}"


def got(one: Reached) -> str:
    """What was reached; a measured value with its error."""
    return amount(one.value) if one.stderr is None else f"{amount(one.value)} ± {amount(one.stderr)}"


def stood(one: Reached) -> str:
    """What was asked for, what was reached, and what one step less or more would be."""
    measured = ", measured" if one.target.quantity == "latency" else ""
    return f"{asked(one)}; reached {got(one)}{measured}; one step less {amount(one.less)}, one more {amount(one.more)}"
