"""Numbers as bars of characters: a score among others, and a share with its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

BAR = 12
"""Characters of the longest bar."""
AXIS = 25
"""Characters from 0 to 100 %."""
SKEWED = 20.0
"""Where the greatest of positive numbers is as many times the median, bars are logarithmic: others would vanish."""


def bars(values: Sequence[float], *, plain: bool) -> tuple[str, list[str]]:
    """A bar for each number, from the least number (or 0, if that is less) to the greatest.

    Args:
        values: The numbers.
        plain: Whether the terminal knows ASCII alone.

    Returns:
        What scale the bars have, and the bars.
    """
    skewed = min(values) > 0 and max(values) > SKEWED * median(values)
    scaled = [math.log(value) for value in values] if skewed else list(values)
    # The least of logarithmic bars is not 0, but a tenth of the range long.
    low = min(scaled) - 0.1 * (max(scaled) - min(scaled)) if skewed else min(0.0, *scaled)
    span = (max(scaled) - low) or 1.0
    return "log scale" if skewed else "", [_bar((value - low) / span, plain=plain) for value in scaled]


def _bar(share: float, *, plain: bool) -> str:
    if plain:
        return "#" * round(share * BAR)
    whole, eighths = divmod(round(share * BAR * 8), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def axis(mean: float, error: float, *, plain: bool) -> str:
    """A share on an axis from 0 to 100 %, with its error to either side; what lies beyond an end is drawn at it."""
    low, middle, high = (_place(value) for value in (mean - error, mean, mean + error))
    ends, line, dot, ground = ("||", "-", "o", ".") if plain else ("├┤", "─", "●", "·")
    drawn = [ground] * AXIS
    drawn[low : high + 1] = [line] * (high + 1 - low)
    drawn[low], drawn[high], drawn[middle] = ends[0], ends[1], dot
    return "".join(drawn)


def _place(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * (AXIS - 1))
