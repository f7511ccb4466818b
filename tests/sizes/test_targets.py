"""Sizes that are asked for: what they mean, and which are refused."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from support.recipes import make_recipe

from layerimp.errors import InputError
from layerimp.sizes.targets import read_targets, split_targets


@pytest.mark.parametrize(
    ("name", "value", "expected", "factor"),
    [
        ("parameters", "200M", 200_000_000, False),
        ("parameters", "1.5B", 1_500_000_000, False),
        ("parameters", 2_000_000, 2_000_000, False),
        ("parameters", 2e6, 2_000_000, False),
        ("bytes", "6GB", 6 * 10**9, False),
        ("bytes", "6GiB", 6 * 2**30, False),
        ("bytes", "1.5 kB", 1500, False),
        ("bytes", "4096", 4096, False),
        ("kv-cache", "64KiB", 65536, False),
        ("kv-cache", 0.7, Fraction(7, 10), True),
        ("bytes", "0.6", Fraction(3, 5), True),
    ],
)
def test_a_target_is_a_size_with_a_unit_or_a_factor(name: str, value: Any, expected: Any, factor: bool) -> None:
    (target,) = read_targets({name: value})
    assert (target.value, target.factor) == (expected, factor)
    assert target.limit(1000) == float(expected * 1000 if factor else expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bytes", "6gb", "unknown unit 'gb'; give 6GB (10^9 bytes each) or 6GiB (2^30 bytes each)"),
        ("bytes", "6G", "unknown unit 'G'"),
        ("parameters", "6GB", "unknown unit 'GB'"),
        ("parameters", "1.2", "no factor between 0 and 1"),
        ("parameters", 1, "no factor between 0 and 1"),
        ("parameters", "1.5", "no factor between 0 and 1"),
        ("parameters", "0", "leaves no model"),
        ("parameters", "-3", "is no size"),
        ("parameters", "nan", "is no size"),
        ("parameters", "", "is no size"),
        ("parameters", True, "is no size"),
        ("size", "3", "unknown target 'size'"),
        ("byte", "3", "Did you mean 'bytes'?"),
    ],
)
def test_what_is_no_target_is_refused_with_what_would_be_right(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_targets({name: value})
    assert message in str(refused.value)


def test_a_command_line_names_a_target_once() -> None:
    assert split_targets(["bytes=6GB", "parameters=0.7"]) == {"bytes": "6GB", "parameters": "0.7"}
    for texts, message in ((["bytes"], "NAME=VALUE"), (["bytes=1GB", "bytes=2GB"], "comes twice: 1GB and 2GB")):
        with pytest.raises(InputError, match=message):
            split_targets(texts)


@pytest.mark.parametrize("other", [{"ratio": 0.5}, {"count": 1}])
def test_a_target_contradicts_another_amount(other: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="targets contradict"):
        make_recipe({"targets": {"bytes": "1MB"}, **other})
