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


class Grouping(Counting):
    """Reports two tasks for each, and says so."""

    name = "grouping"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        metrics = super().evaluate(model, tokenizer)
        return [Metric(f"{metric.task}/{part}", "length", metric.value) for part in (1, 2) for metric in metrics]

    def reported(self) -> frozenset[str]:
        return frozenset(f"{task}/{part}" for task in self.config.tasks for part in (1, 2))


class Unsaid(Grouping):
    """Reports tasks of other names, and does not say so."""

    name = "unsaid"

    def reported(self) -> frozenset[str]:
        return Counting.reported(self)


class Alone(Counting):
    """Has no fingerprint."""

    name = "alone"

    def fingerprint(self) -> None:
        return None


def measured(cls: type[Counting], *tasks: str, who: str = "original", **options: Any) -> list[tuple[str, float]]:
    """Measure a model, as a command does that starts anew; give the metrics."""
    evaluator = cls(cls.Config(tasks=tasks, **options))
    metrics = Evaluation(tiny("llama"), None, SILENT).of({"x": evaluator}, "quality", who)  # type: ignore[arg-type]
    return [(metric.task.removesuffix(" (x)"), metric.value) for metric in metrics]


@pytest.fixture(autouse=True)
def _none_yet() -> None:
    MEASURED.clear()


def test_only_a_new_task_is_measured() -> None:
    first = measured(Counting, "a", "ccc")
    assert measured(Counting, "a", "bb") == [("a", 1), ("bb", 2)]
    assert measured(Counting, "ccc", "dddd", "a", "eeeee") == [("ccc", 3), ("dddd", 4), ("a", 1), ("eeeee", 5)]
    assert [("a", 1), ("ccc", 3)] == first == measured(Counting, "a", "ccc")
    assert MEASURED == [("a", "ccc"), ("bb",), ("dddd", "eeeee")]  # what is missing is measured together
    assert measured(Counting, "bb") == [("bb", 2)]
    assert len(MEASURED) == 3


def test_another_option_measures_all_again() -> None:
    measured(Counting, "a", "bb")
    measured(Counting, "a", "bb", limit=3)
    assert MEASURED == [("a", "bb")] * 2


def test_a_pruned_model_is_always_measured_on_all() -> None:
    for _ in range(2):
        measured(Counting, "a", "bb", who="depth")
    assert MEASURED == [("a", "bb")] * 2


def test_a_task_that_stands_for_several_is_stored_with_all_of_them() -> None:
    measured(Grouping, "a", "bb")
    assert measured(Grouping, "bb", "ccc") == [("bb/1", 2), ("bb/2", 2), ("ccc/1", 3), ("ccc/2", 3)]
    assert MEASURED == [("a", "bb"), ("ccc",)]


@pytest.mark.parametrize("cls", [Unsaid, Alone])
def test_what_belongs_to_no_task_is_not_stored(cls: type[Counting]) -> None:
    both = [measured(cls, "a", "bb") for _ in range(2)]
    assert both[0] == both[1]
    assert MEASURED == [("a", "bb")] * 2
