"""How the report says numbers and names."""

from __future__ import annotations

from collections.abc import Iterable

from layerimp.report.tables import named

MINUS = "\N{MINUS SIGN}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count(value: int) -> str:
    """A count, its digits in groups that no line break parts."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    *first, last = list(names) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def unbroken(ratio: float) -> str:
    """A ratio as people say it, on one line."""
    return named(ratio).replace(" ", "\N{NO-BREAK SPACE}")


def signed(value: float, how: str) -> str:
    """A number whose minus sign is as wide as its plus sign."""
    return f"{value:{how}}".replace("-", MINUS)
