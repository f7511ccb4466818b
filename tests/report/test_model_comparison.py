"""The columns that say how far models of any origin are from an intact one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest

from layerimp._table import Table
from layerimp.calibration.sampling import Calibration
from layerimp.evaluator import Likelihood, Metric
from layerimp.fidelity import Copying, Fidelity, Generation, Spread
from layerimp.metric import by_key
from layerimp.report.model_comparison import ModelMeasures, compared, fidelity_table, figures, task_table
from layerimp.report.results.models import Size
from layerimp.report.tables.fidelity_figures import FIGURES, figures_note

SPREAD = Spread(mean=0.25, stderr=0.0123, median=0.1, p90=0.5, p99=1.5, max=3.0)
COPYING = Copying(accuracy=0.5, intact=0.75, divergence=0.3, agreement=0.5, stderr=0.03)


def measured(loops: float | None) -> Fidelity:
    generation = Generation(
        same_tokens=5, empty=0, loops=loops, prompts=25, intact_empty=0.25, intact_loops=loops, samples=[]
    )
    return Fidelity(
        predictions=8,
        divergence=SPREAD,
        agreement=0.875,
        agreement_stderr=0.021,
        copying=COPYING,
        generation=generation,
    )


def test_every_figure_is_a_column_with_the_intact_model_s_first() -> None:
    columns = {column.head[:-2]: [str(cell) for cell in column.cells] for column in figures([measured(0.5)])}
    assert columns == {
        "divergence": ["", "0.2500 ± 0.012"],
        "divergence p99": ["", "1.500"],
        "agreement": ["", "87.5% ± 2.1%"],
        "copying": ["75.0%", "50.0% ± 3.0%"],
        "same tokens": ["", "5.000"],
        "empty": ["25.0%", "0.0%"],
        "loops": ["50.0%", "50.0% ± 9.3%"],
    }
    assert columns.keys() == FIGURES.keys()


def test_what_no_model_has_is_no_column() -> None:
    heads = [column.head for column in figures([None, measured(None)])]
    assert {head[:-2] for head in heads} == FIGURES.keys() - {"loops"}
    assert [column.head for column in figures([Fidelity(agreement=0.5)])] == ["agreement ↑"]


def test_only_the_figures_that_are_shown_are_explained() -> None:
    assert figures_note(["divergence", "loops", "empty"]) == (
        "divergence: from the intact model's predictions, in nats; empty, loops: of texts that are generated"
    )
    assert all(figure.meaning for name, figure in FIGURES.items() if name.split()[0] == name)


def perplexity(*losses: float) -> Metric:
    likelihood = Likelihood(tuple(-10 * loss for loss in losses), (10.0,) * len(losses), (-80.0,) * len(losses))
    return Metric("prose", "ppl", likelihood.metric(likelihood.loss), 0.1, False, likelihood=likelihood)


def tasks_of(intact: Sequence[Metric], other: Sequence[Metric]) -> Table:
    """The table of tasks of two models."""
    size = Size(blocks=4, parameters=8, bytes=32)
    models = [ModelMeasures(name, size, "float32", by_key(known)) for name, known in (("a", intact), ("b", other))]
    text = Calibration(source="text", rows=1, tokens=8, fingerprint="0")
    return task_table(compared({}, text, models[0], {"b": models[1]}, failures={}, notes=[]))


def test_what_is_retained_stands_beside_the_metric_by_which_the_task_counts() -> None:
    right = [Metric("qa", name, 0.9, 0.03, floor=0.0) for name in ("exact_match", "f1")]
    table = tasks_of(right, right)
    retained = {str(above[1]): str(row[-1]) for above, row in pairwise(table.rows) if str(row[2]) == "b"}
    assert retained["exact_match ↑"] == ""
    assert retained["f1 ↑"].startswith("100.0%")


def test_every_model_has_what_it_retains_itself_and_its_own_size() -> None:
    shares, sizes = {"intact": 0.9, "good": 0.8, "bad": 0.6}, {"intact": 64, "good": 48, "bad": 32}
    models = {
        name: ModelMeasures(
            name,
            Size(blocks=4, parameters=8, bytes=sizes[name]),
            "float32",
            by_key([Metric("mood", "acc", share, 0.03, floor=0.5)]),
        )
        for name, share in shares.items()
    }
    text = Calibration(source="text", rows=1, tokens=8, fingerprint="0")
    comparison = compared({}, text, models.pop("intact"), models, failures={}, notes=[])
    retained = {label: model.retained.worst.mean for label, model in comparison.models.items() if model.retained}
    assert retained == pytest.approx({"good": 0.75, "bad": 0.25})
    (in_bytes,) = (column for column in fidelity_table(comparison).columns if "bytes" in column.head)
    assert [str(cell) for cell in in_bytes.cells] == ["64", "48", "32"]


def test_the_difference_of_a_perplexity_is_a_factor() -> None:
    right = [Metric("mood", "acc", share, 0.03, floor=0.5) for share in (0.9, 0.75)]
    table = tasks_of([perplexity(0.6, 0.62, 0.64), right[0]], [perplexity(0.9, 0.89, 0.93), right[1]])
    to_intact = [str(row[table.heads.index("to intact")]) for row in table.rows if str(row[2]) == "b"]
    factor = math.exp((0.9 + 0.89 + 0.93 - 0.6 - 0.62 - 0.64) / 3)
    assert to_intact[0].startswith(f"×{factor:.2f} [×1.")
    assert to_intact[1].startswith("−0.1500 [−0.")
