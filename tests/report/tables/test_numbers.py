"""How numbers are shown."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from support.grids import findings

from layerimp.report.tables.numbers import amounts, between, number, to_either_side, two_digits


def test_every_ratio_has_its_share_of_the_parameters(tmp_path: Path) -> None:
    """Wherever a share of the blocks is named, the share of the parameters stands beside it."""
    found = findings(tmp_path, counts=[1], ratios=[0.5], repeats=2)
    asked = amounts(found)
    assert [text.partition(" (")[0] for text in asked] == ["1 block", "50% of blocks"]
    assert all(re.search(r"\(\d+\.\d% of parameters\)$", text) for text in asked)
    frame = found.to_pandas().query("kind == 'quality' and scorer != 'original'")
    assert (frame["removed_parameters_low"] <= frame["removed_parameters_high"]).all()
    assert (frame["removed_parameters_high"] < 1).all()
    assert between(0.1841, 0.1842) == "18.4%"
    assert between(0.184, 0.2) == "18.4% to 20.0%"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.000"),
        (0.9, "0.9000"),
        (12.3456, "12.35"),
        (123456.7, "123457"),
        (4.7e9, "4.700e+09"),
        (1e-5, "1.000e-05"),
        (0.00094, "0.0009400"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
    ],
)
def test_numbers_are_short(value: float, said: str) -> None:
    assert number(value) == said


def test_an_interval_has_two_sides_where_they_differ() -> None:
    assert to_either_side(1.0, (0.9, 1.1), two_digits) == "± 0.10"
    assert to_either_side(10.0, (7.0, 14.0), two_digits) == "+4.0 −3.0"
    assert to_either_side(1.0, (1.0, 1.0), two_digits) == ""
    assert to_either_side(1.0, (0.9, math.inf), two_digits) == to_either_side(1.0, None, two_digits) == ""
