"""What a recipe leaves open is settled, and what is used by default is said."""

from __future__ import annotations

from typing import Any

import pytest
from support.recipes import make_recipe
from support.tiny import tiny

from layerimp.assets import Assets
from layerimp.pipeline import resolve as resolving
from layerimp.pipeline.resolve import defaults_note, resolve, settled

METHOD = "scorer divergence with pruner greedy, healed by linear"
TASKS = "starter_stories, starter_sentiment, starter_qa"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {},
            f"by default: {METHOD}; model starter; calibration text starter; tasks {TASKS} "
            "(your own: --scorer NAME --model DIR --calibration FILE --tasks NAMES)",
        ),
        (
            {"model": "mine", "scorers": ["avss"]},
            f"by default: calibration text prose; tasks {TASKS} (your own: --calibration FILE --tasks NAMES)",
        ),
        (
            {"evaluators": ["footprint"], "pruner": "lowest"},
            "by default: model starter; calibration text starter (your own: --model DIR --calibration FILE)",
        ),
        ({"model": "mine", "scorers": ["fast"], "calibration": {"source": "t.jsonl"}, "tasks": []}, None),
        (
            {"model": "mine", "blocks": [1], "calibration": {"source": "t.jsonl"}, "tasks": []},
            "by default: healed by linear (your own: --heal NAME)",
        ),
    ],
)
def test_what_is_used_by_default_is_said(values: dict[str, Any], said: str | None) -> None:
    asked = make_recipe(values)
    assert defaults_note(asked, resolve(asked), ("calibration", "tasks", "amount")) == (said or "")


def test_what_a_command_does_not_read_is_not_said() -> None:
    asked = make_recipe({})
    assert defaults_note(asked, resolve(asked), ("calibration",)) == (
        "by default: scorer divergence; model starter; calibration text starter (your own: --scorer NAME --model DIR "
        "--calibration FILE)"
    )


def test_what_is_left_open_is_settled() -> None:
    everything = resolve(make_recipe({}))
    assert (everything.model, everything.calibration.source) == ("starter", "starter")
    assert everything.tasks == ("starter_stories", "starter_sentiment", "starter_qa")
    own = resolve(make_recipe({"model": "m", "calibration": {"samples": 3}}))
    assert (own.calibration.source, own.calibration.samples, own.tasks) == ("prose", 3, everything.tasks)
    named = make_recipe({"model": "m", "calibration": {"source": "t.jsonl"}, "tasks": []})
    assert resolve(named) == named


def test_the_starter_reads_single_documents_as_it_learned_them() -> None:
    def packing(**calibration: Any) -> str | None:
        return settled(resolve(make_recipe({"calibration": calibration})), tiny("llama")).calibration.packing

    assert packing() == packing(source="starter") == "rows"
    assert packing(packing="windows") == packing(source="mine.jsonl") == "windows"


def test_without_the_starter_there_are_no_tasks_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "assets", Assets)
    assert resolve(make_recipe({"model": "m"})).tasks == ()
    assert resolve(make_recipe({"model": "m", "tasks": ["t"]})).tasks == ("t",)
