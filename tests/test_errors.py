"""Errors: the names that are suggested for an unknown one."""

from __future__ import annotations

import random
from difflib import get_close_matches

import pytest

from layerimp.errors import _NEAREST, _nearest


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 200])
def test_the_nearest_names_are_those_of_difflib(count: int) -> None:
    rng = random.Random(count)

    def word() -> str:
        return "_".join("".join(rng.choices("abcdefg", k=rng.randint(1, 5))) for _ in range(rng.randint(1, 3)))

    for _ in range(10):
        name, known = word(), {word() for _ in range(count)}
        ranked = _nearest(name, known)
        assert [other for _, other in ranked] == get_close_matches(name, known, n=_NEAREST, cutoff=0)
        near = [other for similarity, other in ranked if similarity >= 0.5]
        assert near == get_close_matches(name, known, n=_NEAREST, cutoff=0.5)
