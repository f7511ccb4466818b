"""Target sizes for pruned models, such as `bytes=6GB` or `parameters=0.7`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

from layerimp.errors import OptionError, unknown_name

Quantity = Literal["parameters", "bytes", "kv-cache"]
"""The quantities that a target can limit."""

_BYTES = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("k", "M", "G", "T"), 1)},
    "KB": 1000,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), 1)},
}
_UNITS: dict[str, dict[str, int]] = {
    "parameters": {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12},
    "bytes": _BYTES,
    "kv-cache": _BYTES,
}
"""The factor of each unit of a quantity, relative to the unit without a name."""
UNITS: dict[str, str] = {
    "parameters": "parameters",
    "bytes": "bytes",
    "kv-cache": "bytes per token",
}
"""The unit in which a quantity is shown."""
_EXAMPLES = {
    "parameters": "200M, 1.5B or 200000000",
    "bytes": "6GB (10^9 bytes each) or 6GiB (2^30 bytes each)",
    "kv-cache": "64KiB (2^10 bytes each, per token)",
}
_NUMBER = re.compile(r"(\d{1,30}(?:\.\d{0,30})?(?:e\+?\d{1,2})?)\s*([^\d\s.]*)")
"""A number that is no larger than a float can be, and its unit."""


@dataclass(frozen=True)
class Target:
    """A size that a pruned model must not exceed.

    Attributes:
        quantity: The limited quantity.
        asked: The value as it was written.
        value: The value, in the unit of `UNITS`, or as a factor if `factor` is set.
        factor: Whether the value is a factor of the intact model's value.
    """

    quantity: Quantity
    asked: str
    value: Fraction
    factor: bool

    def __str__(self) -> str:
        return f"{self.quantity}={self.asked}"

    def limit(self, intact: float) -> float:
        """Return the largest allowed value, in the unit of `UNITS`, if the intact model has the value `intact`.

        If `intact` is a NaN, since it is not known, so is a limit that is a factor of it.
        """
        if self.factor and math.isnan(intact):
            return intact
        return float(self.value * Fraction(intact)) if self.factor else float(self.value)


def read_targets(values: Mapping[str, Any]) -> list[Target]:
    """Make targets from plain values, such as `{"bytes": "6GB", "parameters": 0.7}`.

    Raises:
        UnknownNameError: there is no such quantity.
        OptionError: a value is not a size, has an unknown unit, or is a factor that is not between 0 and 1.
    """
    return [_target(name, value) for name, value in values.items()]


def _target(name: str, value: Any) -> Target:
    if name not in get_args(Quantity):
        raise unknown_name("target", name, get_args(Quantity))
    asked = str(value).strip()
    written = None if isinstance(value, bool) else _NUMBER.fullmatch(asked)
    if not written:
        raise OptionError(f"target {name}={asked} is no size; give a factor between 0 and 1, or {_EXAMPLES[name]}")
    number, unit = Fraction(written[1]), written[2]
    quantity: Quantity = next(known for known in get_args(Quantity) if known == name)
    if not unit and 0 < number < 1:
        return Target(quantity, asked, number, factor=True)
    if not number:
        raise OptionError(f"target {name}={asked} leaves no model; give a factor between 0 and 1, or {_EXAMPLES[name]}")
    units = _UNITS[name]
    if unit and unit not in units:
        raise OptionError(f"target {name}={asked} has the unknown unit {unit!r}; give {_EXAMPLES[name]}")
    if not unit and (number == 1 or number % 1):
        raise OptionError(
            f"target {name}={asked} is no factor between 0 and 1, and has no unit; with one it is {_EXAMPLES[name]}"
        )
    return Target(quantity, asked, number * units[unit], factor=False)


def split_targets(texts: list[str]) -> dict[str, str]:
    """Read the targets of a command line, each NAME=VALUE, as plain values.

    Raises:
        OptionError: a target has no value, or a quantity is given twice.
    """
    targets: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--target takes NAME=VALUE, such as bytes=6GB or parameters=0.7, got {text!r}")
        if name in targets:
            raise OptionError(f"the target {name} comes twice: {targets[name]} and {value}")
        targets[name] = value
    return targets


@dataclass(frozen=True)
class Reached:
    """A pruned model's value beside a target; values are in the unit of `UNITS`.

    Attributes:
        target: The target.
        limit: The largest value that is allowed.
        original: The intact model's value.
        value: The pruned model's value.
        less: The value with one block less, which for a single block is the intact model's value. None if there is no
            such plan.
    """

    target: Target
    limit: float
    original: float
    value: float
    less: float | None = None
