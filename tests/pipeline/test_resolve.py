"""The line that lists the defaults in use."""

from __future__ import annotations

from typing import Any

import pytest

from layerimp.pipeline.resolve import resolve, told
from layerimp.recipe import make_recipe

TASKS = "starter_stories, starter_sentiment, starter_qa"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {},
            f"by default: model starter; calibration text starter; tasks {TASKS} "
            "(your own: --model DIR --calibration FILE --tasks NAMES)",
        ),
        (
            {"model": "mine"},
            f"by default: calibration text prose; tasks {TASKS} (your own: --calibration FILE --tasks NAMES)",
        ),
        (
            {"evaluators": ["footprint"]},
            "by default: model starter; calibration text starter (your own: --model DIR --calibration FILE)",
        ),
        ({"model": "mine", "calibration": {"source": "t.jsonl"}, "tasks": []}, None),
    ],
)
def test_what_is_used_by_default_is_said(values: dict[str, Any], said: str | None) -> None:
    asked = make_recipe(values)
    assert told(asked, resolve(asked), ("calibration", "tasks")) == (said or "")


def test_what_a_command_does_not_read_is_not_said() -> None:
    asked = make_recipe({})
    assert told(asked, resolve(asked), ("calibration",)) == (
        "by default: model starter; calibration text starter (your own: --model DIR --calibration FILE)"
    )
