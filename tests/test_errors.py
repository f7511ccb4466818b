"""Errors: the names that are suggested for an unknown one, and what pydantic refuses in one line."""

from __future__ import annotations

import random
from difflib import get_close_matches
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from layerimp.errors import _NEAREST, _nearest, first_problem


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


class Box(BaseModel, extra="forbid"):
    sides: tuple[int, int]
    names: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _flat(self) -> Box:
        if 0 in self.sides:
            raise ValueError("a box has no side of 0")
        return self


@pytest.mark.parametrize(
    ("values", "kind", "line", "value"),
    [
        ({"sides": (1, "x")}, "int_parsing", "sides.1: Input should be a valid integer", "x"),
        ({"sides": 5}, "tuple_type", "sides: Input should be a list", 5),
        ({"sides": (1, 2), "names": 3}, "dict_type", "names: Input should be a mapping of names to values", 3),
        ({"sides": (0, 2)}, "value_error", "a box has no side of 0", {"sides": (0, 2)}),
        ({}, "missing", "sides: Field required", {}),
        ({"sides": (1, 2), "lid": 1}, "extra_forbidden", "lid: Extra inputs are not permitted", 1),
    ],
)
def test_the_first_problem_is_one_line(values: dict[str, Any], kind: str, line: str, value: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        Box(**values)
    problem = first_problem(raised.value)
    assert str(problem).startswith(line)
    assert "\n" not in str(problem)
    assert (problem.kind, problem.value) == (kind, value)
