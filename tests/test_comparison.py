"""Pruned models side by side: averages, errors and who is best, and a table that fits the screen."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerimp.cli.display import Screen
from layerimp.evaluator import Metric, retention, retention_stderr
from layerimp.pruner import PrunePlan
from layerimp.recipe import make_recipe
from layerimp.report import Report, Size
from layerimp.report.comparison import Comparison
from layerimp.scorer import Importance

INF = math.inf


def metric(value: float, stderr: float | None = 0.01, name: str = "acc", *, task: str = "t", up: bool = True) -> Metric:
    return Metric(task, name, value, stderr, up)


@pytest.mark.parametrize("up", [True, False])
def test_the_error_of_a_retention_is_that_of_many_draws(up: bool) -> None:
    before, after = metric(0.8, 0.01, up=up), metric(0.6, 0.02, up=up)
    rng = np.random.default_rng(0)
    draws = rng.normal([before.value, after.value], [0.01, 0.02], size=(200_000, 2))
    shares = draws[:, 1] / draws[:, 0] if up else draws[:, 0] / draws[:, 1]
    assert retention_stderr(before, after) == pytest.approx(shares.std(), rel=0.01)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (metric(0.8, None), metric(0.6), None),
        (metric(0.8), metric(0.6, None), None),
        (metric(0.0), metric(0.6), None),
        (metric(0.5), metric(0.0, 0.0), 0.0),
        (metric(20, 1, up=False), metric(INF, INF, up=False), 0.0),
        (metric(20, 1, up=False), metric(1e9, INF, up=False), None),
    ],
)
def test_an_error_that_is_not_known_is_not_invented(before: Metric, after: Metric, expected: float | None) -> None:
    assert retention_stderr(before, after) == expected


def test_averages_go_over_metrics_and_then_over_tasks() -> None:
    found = Comparison.of(
        {
            "original": [metric(0.8), metric(0.5, name="f1"), metric(10.0, 1.0, task="u", name="ppl", up=False)],
            "a": [metric(0.4), metric(0.5, name="f1"), metric(40.0, 2.0, task="u", name="ppl", up=False)],
            "b": [metric(0.8), metric(0.4, name="f1"), metric(20.0, 2.0, task="u", name="ppl", up=False)],
        }
    )
    assert found.labels == ["b", "a"]
    assert found.average["a"].value == pytest.approx(((0.5 + 1.0) / 2 + 0.25) / 2)
    assert found.average["b"].value == pytest.approx(((1.0 + 0.8) / 2 + 0.5) / 2)
    acc = 0.01 / 0.8 * math.hypot(1, 0.5)
    f1 = 0.01 / 0.5 * math.hypot(1, 1)
    ppl = 0.25 * math.hypot(1 / 10, 2 / 40)
    assert found.average["a"].stderr == pytest.approx(math.hypot((acc + f1) / 2, ppl) / 2)


def test_only_what_every_model_retains_is_averaged() -> None:
    original = [metric(0.8), metric(-1.0, name="score")]
    found = Comparison.of({"original": original, "a": [metric(0.4), metric(-2.0, name="score")], "b": [metric(0.8)]})
    assert {label: one.value for label, one in found.average.items()} == {"a": 0.5, "b": 1.0}
    none = Comparison.of({"original": [metric(0.0)], "b": [metric(0.4)], "a": [metric(0.8)]})
    assert (none.labels, none.average, none.best_average) == (["b", "a"], {}, frozenset())
    assert none.to_dict()["average_retention"] == {"b": None, "a": None}


@pytest.mark.parametrize(
    ("values", "up", "best"),
    [
        ({"a": (0.8, 0.01), "b": (0.5, 0.01)}, True, "a"),
        ({"a": (0.8, 0.01), "b": (0.5, 0.01)}, False, "b"),
        ({"a": (0.8, 0.1), "b": (0.6, 0.1), "c": (0.1, 0.1)}, True, "ab"),
        ({"a": (0.8, 0.1), "b": (0.8, 0.1)}, True, "ab"),
        ({"a": (0.8, None), "b": (0.5, None)}, True, ""),
        ({"a": (0.8, 0.01), "b": (0.5, None)}, True, ""),
        ({"a": (20.0, 1.0), "b": (INF, INF)}, False, "a"),
        ({"a": (20.0, 1.0), "b": (1e300, INF)}, False, "a"),
        ({"a": (INF, INF), "b": (INF, INF)}, False, ""),
        ({"a": (0.8, 0.01)}, True, ""),
    ],
    ids=str,
)
def test_nobody_is_crowned_within_the_errors(values: dict[str, Any], up: bool, best: str) -> None:
    found = Comparison.of(
        {"original": [metric(0.9, up=up)]} | {label: [metric(*one, up=up)] for label, one in values.items()}
    )
    assert found.best["t", "acc"] == set(best)


@settings(derandomize=True, max_examples=100, deadline=None, database=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 0.3)), min_size=2, max_size=6))
def test_the_best_value_is_always_among_the_best(values: list[tuple[float, float]]) -> None:
    metrics = {str(index): [metric(*one)] for index, one in enumerate(values)}
    found = Comparison.of({"original": [metric(1.0)], **metrics})
    top = max(metrics, key=lambda label: metrics[label][0].value)
    assert top in found.best["t", "acc"]
    assert found.labels[0] in found.best_average
    averages = [found.average[label].value for label in found.labels]
    assert averages == sorted(averages, reverse=True)
    assert averages == [retention(metric(1.0), metrics[label][0]) for label in found.labels]


NAMES = "angular avss block-influence relative-magnitude random depth".split()


def whole_report(tasks: int) -> Report:
    """A model of 32 blocks, pruned by 6 scorers, 8 blocks each."""
    made = Report(make_recipe({"model": "m", "tasks": ["t"], "limit": 50}), num_blocks=32, loader="AutoModel")
    made.sizes = {"original": Size(32, 1_000_000_000, 4_000_000_000)}
    made.metrics = {"original": [metric(0.8123, 0.0123, task=f"task_number_{t}") for t in range(tasks)]}
    made.footprint = {"original": [Metric("footprint", "latency_ms", 1234.5, 6.5, False)]}
    made.calibration = {"rows": 1, "tokens": 8}
    made.baselines = ["random", "depth"]
    for index, label in enumerate(NAMES):
        blocks = [4 * block + (index if block % 2 else 0) for block in range(8)] if index < 4 else list(range(20, 28))
        made.plans[label] = PrunePlan(num_blocks=32, blocks=[block % 32 for block in blocks])
        made.sizes[label] = Size(24, 770_000_000, 3_080_000_000)
        made.importance[label] = Importance([float(block) for block in range(32)])
        made.metrics[label] = [
            metric((0.1 + index / 10) / (1 + t / 10), 0.0123, task=f"task_number_{t}") for t in range(tasks)
        ]
        made.footprint[label] = made.footprint["original"]
    return made


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("tasks", [1, 2, 9])
def test_the_comparison_fits_the_screen(
    width: int, tasks: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("layerimp.cli.display.WIDTH_WITHOUT_TERMINAL", width)
    report = whole_report(tasks)
    Screen().show(report)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out
    _, shown = out.split("comparison, 8 of 32 blocks (25.00%) removed")
    table = shown.split("* the best")[0]
    rows = [line.split()[0] for line in table.splitlines() if re.match(r"  (original|[a-z-]+)  ", line)]
    whole = "model original depth random relative-magnitude block-influence avss angular".split()
    assert rows == whole * (len(rows) // len(whole))  # as many parts as it takes, of all models each
    words = table.split()
    for label in NAMES:
        assert all(f"{one.value:.4g}" in words for one in report.metrics[label])
    assert words.count("0.012") == 7 * tasks
    for told in ("20-27", "23.00%", "average", "retention"):
        assert told in table
    assert words.count("*") == tasks + 1  # depth is clearly the best everywhere
    assert "baselines: depth, random; a scorer that is not above them has shown nothing" in shown


def test_a_tie_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    report = whole_report(1)
    for label in NAMES:
        report.metrics[label] = [metric(0.5, 0.2, task="task_number_0")]
    Screen().show(report)
    out = capsys.readouterr().out
    assert "no model is set apart by its average retention" in out
    assert "importance of 32 blocks" in out
    assert "random: importance" not in out


def test_one_pruned_model_has_its_retention_by_metric(capsys: pytest.CaptureFixture[str]) -> None:
    report = whole_report(1)
    for label in NAMES[1:]:
        for part in (report.plans, report.sizes, report.importance, report.metrics, report.footprint):
            del part[label]
    report.baselines = []
    Screen().show(report)
    out = capsys.readouterr().out
    assert "comparison" not in out
    assert "quality (± standard error" in out
    assert "12.3%" in out
