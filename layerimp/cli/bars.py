"""Draws numbers with characters: bars for scores, and an axis for a share with its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

BAR = 12
"""The length of the longest bar, in characters."""
AXIS = 25
"""The length of the axis from 0 to 100 %, in characters."""
SKEWED = 20.0
"""If the largest of positive numbers is more than this many times the median, bars are logarithmic."""


def bars(values: Sequence[float], *, plain: bool) -> tuple[str, list[str]]:
    """Draw a bar for each number, on a scale from the smallest number (or 0, if that is smaller) to the largest.

    Args:
        values: The numbers.
        plain: Whether the terminal shows only ASCII.

    Returns:
        The name of the scale, and the bars.
    """
    skewed = min(values) > 0 and max(values) > SKEWED * median(values)
    scaled = [math.log(value) for value in values] if skewed else list(values)
    # The shortest of logarithmic bars has a tenth of the full length rather than 0.
    low = min(scaled) - 0.1 * (max(scaled) - min(scaled)) if skewed else min(0.0, *scaled)
    span = (max(scaled) - low) or 1.0
    return "log scale" if skewed else "", [_bar((value - low) / span, plain=plain) for value in scaled]


def _bar(share: float, *, plain: bool) -> str:
    if plain:
        return "#" * round(share * BAR)
    whole, eighths = divmod(round(share * BAR * 8), 8)
    return "█" * whole + " ▏▎▍▌▋▊▉"[eighths].strip()


def axis(mean: float, error: float, *, plain: bool) -> str:
    """Draw a share on an axis from 0 to 100 %, with its error to either side; values beyond an end are drawn at it."""
    low, middle, high = (_place(value) for value in (mean - error, mean, mean + error))
    ends, line, dot, ground = ("||", "-", "o", ".") if plain else ("├┤", "─", "●", "·")
    drawn = [ground] * AXIS
    drawn[low : high + 1] = [line] * (high + 1 - low)
    drawn[low], drawn[high], drawn[middle] = ends[0], ends[1], dot
    return "".join(drawn)


def _place(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * (AXIS - 1))
