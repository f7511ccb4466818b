"""Errors: the names that are suggested for an unknown one, and what pydantic refuses in one line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from layerimp.errors import first_problem, unknown_name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metrik7", "unknown metric 'metrik7'. Did you mean 'metric7'? Known: depth, metric7."),
        ("zzz", "unknown metric 'zzz'. Known: depth, metric7. Or a label?"),
    ],
)
def test_of_few_names_all_are_listed(name: str, said: str) -> None:
    assert str(unknown_name("metric", name, ["metric7", "depth"], otherwise="Or a label?")) == said


def test_of_many_names_the_nearest_are_listed() -> None:
    known = [f"metric{number}" for number in range(30)] + ["depth"]
    said = str(unknown_name("metric", "metrik12", known, of="the plan"))
    assert said.startswith("unknown metric 'metrik12' of the plan. Did you mean 'metric12' or ")
    nearest = said.partition("The nearest of 31: ")[2].removesuffix(".").split(", ")
    assert (len(nearest), nearest[0]) == (10, "metric12")
    assert str(unknown_name("metric", "zzz", known)) == "unknown metric 'zzz'. None of 31 is like it."
    said = str(unknown_name("metric", "zzz", known, otherwise="layerimp scorers lists all."))
    assert said.endswith("None of 31 is like it. layerimp scorers lists all.")


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
