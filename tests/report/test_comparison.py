"""The comparison of pruned models: averages, errors, the best models, and a table that fits the screen."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recipes import make_recipe
from support.reports import MadeUpRun, model_of

from layerimp.calibration.sampling import Calibration
from layerimp.cli.display import Screen
from layerimp.evaluator import Likelihood, Metric, Stratum
from layerimp.pruner import PrunePlan
from layerimp.report.results.comparison import ModelResults
from layerimp.report.results.models import Size
from layerimp.report.words import number
from layerimp.scorer import Importance

INF = math.inf


@dataclass(frozen=True)
class Compared:
    """A comparison of models from which equally many blocks were removed, each time others."""

    model: ModelResults

    @property
    def labels(self) -> list[str]:
        return self.model.order

    @property
    def best(self) -> dict[tuple[str, str], set[str]]:
        return {(row.task, row.metric): set(row.best) for row in self.model.rows if row.original}

    @property
    def best_retained(self) -> set[str]:
        return {label for row in self.model.headlines for label in row.best}

    @property
    def worst(self) -> dict[str, float | None]:
        """What each model retains, as the lower of its two means."""
        return {
            removal.label: removal.retained and removal.retained.worst and removal.retained.worst.mean
            for removal in self.model.removals
        }


def compare(metrics: Mapping[str, Sequence[Metric]]) -> Compared:
    """Compare the metrics of models by label, with those of the intact model under `original`."""
    labels = [label for label in metrics if label != "original"]
    blocks = len(labels) + 2
    made = MadeUpRun(make_recipe({"model": "m", "count": 1, "scorers": labels}), num_blocks=blocks, loader="AutoModel")
    made.importance = {label: Importance([0.0] * blocks) for label in labels}
    made.plans = {label: PrunePlan(num_blocks=blocks, blocks=[n], pruner="lowest") for n, label in enumerate(labels)}
    made.sizes = dict.fromkeys(labels, Size(blocks=blocks - 1, parameters=90, bytes=360))
    made.sizes["original"] = Size(blocks=blocks, parameters=100, bytes=400)
    made.metrics = {label: list(each) for label, each in metrics.items()}
    return Compared(model_of(made))


def metric(value: float, stderr: float | None = 0.01, name: str = "acc", *, task: str = "t", up: bool = True) -> Metric:
    return Metric(task, name, value, stderr, up)


def accuracy(right: int, task: str = "t", count: int = 100) -> Metric:
    documents = tuple(float(n < right) for n in range(count))
    return Metric(task, "acc", right / count, 0.03, floor=0.5, documents=documents)


def perplexity(*losses: float, task: str = "u", name: str = "ppl", words: float = 1.0) -> Metric:
    units = (10.0 * words,) * len(losses)
    made = Likelihood(tuple(-10 * loss for loss in losses), units, (-80.0,) * len(losses))
    return Metric(task, name, made.metric(made.loss), 1.0, False, likelihood=made)


def test_models_stand_in_the_order_of_what_they_retain() -> None:
    comparison = compare(
        {
            "original": [accuracy(90), perplexity(3.0, 3.1, 2.9, 3.2)],
            "a": [accuracy(70), perplexity(3.1, 3.2, 3.0, 3.3)],
            "b": [accuracy(85), perplexity(5.0, 5.1, 4.9, 5.2)],
            "c": [perplexity(3.1, 3.2, 3.0, 3.3)],
            "d": [accuracy(40), perplexity(3.1, 3.2, 3.0, 3.3)],
        }
    )
    assert comparison.worst == {
        "a": pytest.approx(0.5),
        "b": pytest.approx((8 - 5.05) / (8 - 3.05)),
        "c": None,  # accuracies were not measured
        "d": 0.0,
    }
    assert comparison.labels == ["b", "a", "d", "c"]


def test_without_anything_to_retain_the_order_is_that_of_the_request() -> None:
    comparison = compare({"original": [accuracy(40)], "b": [accuracy(30)], "a": [accuracy(80)]})
    assert comparison.labels == ["b", "a"]
    assert comparison.best_retained == set()
    assert comparison.worst == {"b": None, "a": None}
    assert [removal.retained and removal.retained.tasks for removal in comparison.model.removals] == [{"t": None}] * 2


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
        ({"a": (238.0, 32.0), "b": (6e10, 7e10)}, False, "a"),
        ({"a": (INF, INF), "b": (INF, INF)}, False, ""),
        ({"a": (0.8, 0.01)}, True, ""),
    ],
    ids=str,
)
def test_nobody_is_crowned_within_the_errors(values: dict[str, Any], up: bool, best: str) -> None:
    """Metrics without the values of documents."""
    comparison = compare(
        {"original": [metric(0.9, up=up)]} | {label: [metric(*value, up=up)] for label, value in values.items()}
    )
    assert comparison.best["t", "acc"] == set(best)


def test_what_is_ten_times_worse_is_never_called_equal() -> None:
    """The first example of the issue: a perplexity of 6e10, with an error as large, beside one of 238."""
    models = {
        "original": [perplexity(3.1, 3.3)],
        "good": [perplexity(5.4, 5.6)],
        "near": [perplexity(5.3, 5.8)],
        "bad": [perplexity(8.0, 41.7)],
    }
    comparison = compare(models)
    assert comparison.best["u", "ppl"] == {"good", "near"}


def test_a_model_that_broke_takes_no_marks_from_the_others() -> None:
    losses = [3.0, 3.1, 2.9, 3.2, 3.1, 3.0, 3.3, 2.8]  # with fewer documents no difference could be significant
    models = {
        "original": [perplexity(*losses)],
        "good": [perplexity(*(loss + 0.1 * (n % 3) for n, loss in enumerate(losses)))],
        "worse": [perplexity(*(loss + 2 + 0.1 * (n % 2) for n, loss in enumerate(losses)))],
        "broken": [perplexity(INF, *losses[1:])],
    }
    comparison = compare(models)
    assert comparison.best["u", "ppl"] == {"good"}
    assert comparison.best_retained == {"good"}
    assert comparison.labels[-1] == "broken"
    (broken,) = [
        removal for removal in comparison.model.model_dump(mode="json")["removals"] if removal["scorer"] == "broken"
    ]
    assert broken["retained"]["tasks"]["u"]["mean"] == "-Infinity"
    assert broken["retained"]["worst"]["mean"] == 0.0


def test_one_likelihood_has_one_winner_whatever_the_unit() -> None:
    rng = np.random.default_rng(0)
    losses = {label: rng.normal(mean, 0.4, 12) for label, mean in (("original", 3.0), ("a", 4.0), ("b", 4.2), ("c", 5))}
    models = {
        label: [perplexity(*values, name="byte", words=5.0), perplexity(*values, name="word")]
        for label, values in losses.items()
    }
    comparison = compare(models)
    assert comparison.best["u", "word"] == comparison.best["u", "byte"]


def test_pairs_show_what_independent_errors_hide() -> None:
    """Two models whose correct documents differ in six."""
    better, worse = accuracy(80), accuracy(74)
    comparison = compare({"original": [accuracy(90)], "a": [better], "b": [worse]})
    assert comparison.best["t", "acc"] == {"a"}
    apart = [replace(metric, documents=None) for metric in (accuracy(90), better, worse)]
    unpaired = compare(dict(zip(("original", "a", "b"), ([m] for m in apart), strict=True)))
    assert unpaired.best["t", "acc"] == {"a", "b"}


def test_notes_say_what_the_numbers_cannot() -> None:
    few, chance = accuracy(18, "few", 20), accuracy(52, "chance")
    bare, lower = metric(0.9, name="f1", task="bare"), metric(3.0, name="ter", task="lower", up=False)
    comparison = compare(
        {
            "original": [few, chance, bare, lower, perplexity(3.0, *[3.1] * 30)],
            "a": [accuracy(20, "few", 20), chance, bare, lower, perplexity(2.9, *[3.0] * 30)],
        }
    )
    assert comparison.model.all_notes == [
        "few has 20 documents: under 30, only large differences can be detected",
        "chance: nothing can be retained of acc, for the intact model is not 2 standard errors above what chance gives "
        "(0.5)",
        "bare: the evaluator gives no floor of f1, so that what chance gives counts as retained",
        "lower: nothing can be retained of ter, for lower is better, and the evaluator gives no likelihood",
        "not known document by document, and so compared as if on different ones: f1 of bare, ter of lower",
        "a retains 125.0% of few: it is better than the intact model, no more than chance explains (p = 0.5)",
        "a retains 102.0% of u: it is better than the intact model, more than chance explains (p = 9.3e-10)",
    ]


def test_a_note_is_on_the_parts_of_an_average_that_are_retained() -> None:
    """One more right answer where the intact model knows something, and 42 fewer where it guesses."""
    strata = (Stratum(100, 0.5, "knows", 0.25), Stratum(100, 0.5, "guesses", 0.5))

    def mean(knows: int, guesses: int) -> Metric:
        right = tuple(float(n % 100 < (knows if n < 100 else guesses)) for n in range(200))
        value = (knows + guesses) / 200
        return Metric("both", "accuracy", value, 0.03, floor=0.375, documents=right, strata=strata)

    note = compare({"original": [mean(70, 52)], "a": [mean(71, 10)]}).model.all_notes[-1]
    better = "it is better than the intact model on the parts that count, no more than chance explains (p = "
    assert note.startswith(f"a retains 102.2% of both: {better}")


def test_a_note_names_the_parts_of_an_average_that_cannot_be_retained() -> None:
    strata = (Stratum(100, 0.5, "knows", 0.25), Stratum(100, 0.5, "guesses", 0.5))
    right = tuple(float(n % 100 < (70 if n < 100 else 52)) for n in range(200))
    mean = Metric("both", "accuracy", 0.61, 0.03, floor=0.375, documents=right, strata=strata)
    notes = compare({"original": [mean], "a": [mean]}).model.all_notes
    assert notes == [
        "both: what is retained leaves out guesses, where the intact model is not 2.3 standard errors above what "
        "chance gives"
    ]


@settings(derandomize=True, max_examples=100, deadline=None, database=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 0.3)), min_size=2, max_size=6))
def test_the_best_value_is_always_among_the_best(values: list[tuple[float, float]]) -> None:
    metrics = {str(index): [metric(*value)] for index, value in enumerate(values)}
    comparison = compare({"original": [metric(1.0)], **metrics})
    top = max(metrics, key=lambda label: metrics[label][0].value)
    assert top in comparison.best["t", "acc"]
    assert comparison.labels[0] in comparison.best_retained
    shares = [share for label in comparison.labels if (share := comparison.worst[label]) is not None]
    assert shares == sorted(shares, reverse=True)
    assert shares == pytest.approx([metrics[label][0].value for label in comparison.labels])


NAMES = "angular avss block-influence relative-magnitude random depth".split()


def whole_report(tasks: int) -> MadeUpRun:
    """A model of 32 blocks, pruned by 6 scorers, 8 blocks each."""
    made = MadeUpRun(make_recipe({"model": "m", "tasks": ["t"], "limit": 50}), num_blocks=32, loader="AutoModel")
    made.sizes = {"original": Size(blocks=32, parameters=1_000_000_000, bytes=4_000_000_000)}
    made.metrics = {"original": [metric(0.8123, 0.0123, task=f"task_number_{t}") for t in range(tasks)]}
    made.footprint = {"original": [Metric("footprint", "latency_ms", 1234.5, 6.5, False)]}
    made.calibration = Calibration(source="text", rows=1, tokens=8, fingerprint="abc")
    made.baselines = ["random", "depth"]
    for index, label in enumerate(NAMES):
        blocks = (
            [4 * block + (index if block % 2 else 0) for block in range(8)]
            if index < 4
            else list(range(16 + index, 24 + index))
        )
        made.plans[label] = PrunePlan(num_blocks=32, blocks=[block % 32 for block in blocks])
        made.sizes[label] = Size(blocks=24, parameters=770_000_000, bytes=3_080_000_000)
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
    monkeypatch.setenv("COLUMNS", str(width))
    report = whole_report(tasks)
    Screen().show(report.results())
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out
    _, shown = out.split("comparison of m, 8 of 32 blocks (25.00%) removed")
    table = shown.split("bold, *: ")[0]
    rows = [line.split()[0] for line in table.splitlines() if re.match(r"  (original|[a-z-]+)  ", line)]
    whole = "model original depth random relative-magnitude block-influence avss angular".split()
    assert rows == whole * (len(rows) // len(whole))  # as many parts as it takes, of all models each
    words = table.split()
    for label in NAMES:
        assert all(number(figure.value) in words for figure in report.metrics[label])
    assert words.count("0.012") == 7 * tasks
    for text in ("20-27", "(23.00%)", "retained", "accuracy"):
        assert text in table
    assert words.count("*") == tasks + 1  # depth is clearly the best everywhere
    assert "baselines: random, depth; a scorer that does not beat them has shown nothing" in shown


def test_a_tie_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    report = whole_report(1)
    for label in NAMES:
        report.metrics[label] = [metric(0.5, 0.2, task="task_number_0")]
    Screen().show(report.results())
    out = capsys.readouterr().out
    assert "no model is significantly better by what it retains" in out
    assert "importance of 32 blocks" in out
    assert "random: importance" not in out


def test_one_pruned_model_shows_what_is_retained_by_metric(capsys: pytest.CaptureFixture[str]) -> None:
    report = whole_report(1)
    for label in NAMES[1:]:
        for part in (report.plans, report.sizes, report.importance, report.metrics, report.footprint):
            del part[label]
    report.baselines = []
    Screen().show(report.results())
    out = capsys.readouterr().out
    assert "comparison" not in out
    assert "quality of" in out
    assert "12.3%" in out
