"""Describes in words how the sizes of pruned models compare with the targets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from layerimp.report.results.models import ReachedTarget, Target
from layerimp.sizes.targets import UNITS

if TYPE_CHECKING:
    from layerimp.sizes.targets import Reached


def target(value: Reached) -> Target:
    """Return the target beside which a value was reached."""
    return Target(
        asked=value.target.asked,
        factor=value.target.factor,
        unit=UNITS[value.target.quantity],
        limit=value.limit,
        original=value.original,
    )


def reached(value: Reached) -> ReachedTarget:
    """Return the value that was reached."""
    return ReachedTarget(value=value.value, stderr=value.stderr, one_less=value.less, one_more=value.more)


def amount(value: float | None) -> str:
    """Show a size, with all digits if it is counted; `-` if it is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.3g}"


def asked(quantity: str, target: Target) -> str:
    """Show a target, such as `bytes=6GB: at most 6,000,000,000 bytes`."""
    factor = f", {target.asked} of {amount(target.original)}" if target.factor else ""
    limit = amount(math.floor(target.limit) if target.limit >= 1000 else target.limit)
    return f"{quantity}={target.asked}: at most {limit} {target.unit}{factor}"


def got(reached: ReachedTarget) -> str:
    """Show the value reached, and the standard error of a measured value."""
    return amount(reached.value) + ("" if reached.stderr is None else f" ± {amount(reached.stderr)}")


def beside(quantity: str, target: Target, reached: ReachedTarget) -> str:
    """Show a target, the value reached, and the values with one step less or more."""
    measured = ", measured" if quantity == "latency" else ""
    ends = f"one step less {amount(reached.one_less)}, one more {amount(reached.one_more)}"
    return f"{asked(quantity, target)}; reached {got(reached)}{measured}; {ends}"
