"""The intact model's metrics are stored by task: a list of other tasks measures only what is new."""

from __future__ import annotations

from typing import Any

import pytest
from support.tiny import tiny

from layerimp import Evaluator, Metric
from layerimp.component import Options
from layerimp.evaluation.runner import Evaluation
from layerimp.progress import SILENT

MEASURED: list[tuple[str, ...]] = []
"""The tasks of each call of `evaluate`."""


class Counting(Evaluator):
    """Gives the length of a task's name, and notes which tasks it was asked for."""

    name = "counting"

    class Config(Options):
        tasks: tuple[str, ...] = ()
        limit: int | None = None

    config: Config

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        MEASURED.append(self.config.tasks)
        return [Metric(task, "length", len(task)) for task in self.config.tasks]

    def fingerprint(self) -> str | None:
        return f"{self.config.tasks} {self.config.limit}"


class Alone(Counting):
    """Has no fingerprint."""

    name = "alone"

    def fingerprint(self) -> None:
        return None


def measured(
    cls: type[Counting], *tasks: str, who: str = "original", architecture: str = "llama", **options: Any
) -> list[tuple[str, float]]:
    """Measure a model, as a command does that starts anew; give the metrics."""
    evaluator = cls(cls.Config(tasks=tasks, **options))
    metrics = Evaluation(tiny(architecture), None, SILENT).of({"x": evaluator}, "quality", who)  # type: ignore[arg-type]
    return [(metric.task.removesuffix(" (x)"), metric.value) for metric in metrics]


@pytest.fixture(autouse=True)
def _none_yet() -> None:
    MEASURED.clear()


def test_what_is_known_is_not_measured_again() -> None:
    first = measured(Counting, "a", "ccc")
    assert first == measured(Counting, "a", "ccc") == [("a", 1), ("ccc", 3)]
    assert measured(Counting, "a", "bb") == [("a", 1), ("bb", 2)]
    assert MEASURED == [("a", "ccc"), ("a", "bb")]


def test_another_model_is_measured_again() -> None:
    measured(Counting, "a")
    measured(Counting, "a", architecture="gpt2")
    assert MEASURED == [("a",)] * 2


def test_another_option_measures_all_again() -> None:
    measured(Counting, "a", "bb")
    measured(Counting, "a", "bb", limit=3)
    assert MEASURED == [("a", "bb")] * 2


def test_a_pruned_model_is_always_measured_on_all() -> None:
    for _ in range(2):
        measured(Counting, "a", "bb", who="depth")
    assert MEASURED == [("a", "bb")] * 2


def test_what_has_no_fingerprint_is_not_stored() -> None:
    both = [measured(Alone, "a", "bb") for _ in range(2)]
    assert both[0] == both[1]
    assert MEASURED == [("a", "bb")] * 2
