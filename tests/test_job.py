"""What a job says of the defaults that it uses."""

from __future__ import annotations

from typing import Any

import pytest

from layerimp.pipeline.stages import Job
from layerimp.progress import Progress
from layerimp.recipe import Permissions, make_recipe


class Noting(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


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
    progress = Noting()
    Job(make_recipe(values), Permissions(), progress, reads=("calibration", "tasks"))
    assert progress.notes == ([] if said is None else [said])


def test_what_a_command_does_not_read_is_not_said() -> None:
    progress = Noting()
    Job(make_recipe({}), Permissions(), progress, reads=("calibration",))
    assert progress.notes == [
        "by default: model starter; calibration text starter (your own: --model DIR --calibration FILE)"
    ]
