"""The one rule for winners: of models with equally many blocks removed, what no other beats; for a run and a grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from support.grids import findings, measured, row
from support.recipes import make_recipe
from support.reports import MadeUpRun, model_of

from layerimp.evaluator import Metric
from layerimp.pruner import PrunePlan
from layerimp.report.page import page
from layerimp.report.paired_bootstrap import Estimate, difference
from layerimp.report.results.models import Size
from layerimp.report.tables.models import side_by_side
from layerimp.scorer import Importance

Right = tuple[bool, ...]
"""Which documents a model gets right."""


def accuracy(right: Right) -> Metric:
    return Metric("t", "acc", sum(right) / len(right), 0.03, floor=0.1, documents=tuple(map(float, right)))


def run_of(models: Sequence[tuple[int, Right]]) -> MadeUpRun:
    """A run by a size: each scorer's model lacks so many blocks, others each time, and gets these documents right."""
    labels = [f"s{n}" for n in range(len(models))]
    blocks = 4 * len(models) + 2
    recipe = make_recipe(
        {"model": "m", "targets": {"parameters": 0.5}, "scorers": labels, "calibration": {"source": "text"}}
    )
    made = MadeUpRun(recipe, num_blocks=blocks, loader="AutoModel")
    made.sizes = {"original": Size(blocks=blocks, parameters=1000, bytes=4000)}
    made.metrics = {"original": [accuracy((True,) * len(models[0][1]))]}
    for n, (label, (count, right)) in enumerate(zip(labels, models, strict=True)):
        made.importance[label] = Importance([0.0] * blocks)
        made.plans[label] = PrunePlan(
            num_blocks=blocks, blocks=[4 * n + each for each in range(count)], pruner="lowest"
        )
        made.sizes[label] = Size(blocks=blocks - count, parameters=1000 - count, bytes=400)
        made.metrics[label] = [accuracy(right)]
    return made


def unbeaten(values: dict[str, Right]) -> set[str]:
    """What no other beats, by McNemar's test for all pairs, and statsmodels' Holm."""
    pairs = list(combinations(values, 2))
    p_values = []
    for first, second in pairs:
        won = sum(a and not b for a, b in zip(values[first], values[second], strict=True))
        lost = sum(b and not a for a, b in zip(values[first], values[second], strict=True))
        p_values.append(float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0)
    beaten = set()
    for (first, second), rejected in zip(pairs, multipletests(p_values, 0.05, "holm")[0], strict=True):
        if rejected:
            beaten.add(first if sum(values[first]) < sum(values[second]) else second)
    return values.keys() - beaten


@st.composite
def groups(draw: st.DrawFn) -> list[tuple[int, Right]]:
    """Models that lack 1, 2 or 3 blocks, some of them clearly worse than others."""
    seeds = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9), st.sampled_from([0.2, 0.5, 0.8]))))
    models = []
    for count, seed, share in [(1, 0, 0.5), *seeds[:6]]:
        models.append((count, tuple(bool(x) for x in np.random.default_rng(seed).random(40) < share)))
    return models


@settings(derandomize=True, max_examples=6, deadline=None, database=None)  # half a second each
@given(groups())
def test_only_models_with_equally_many_blocks_are_compared(models: list[tuple[int, Right]]) -> None:
    model = model_of(run_of(models))
    rows = {tuple(each.counts): each for each in model.rows if each.task == "t"}
    assert {count for counts in rows for count in counts} == {count for count, _ in models}
    for (count,), each in rows.items():
        values = {f"s{n}": right for n, (removed, right) in enumerate(models) if removed == count}
        assert each.entries.keys() == values.keys()
        assert set(each.best) == (unbeaten(values) if len(values) > 1 else set())
        assert {entry.label for entry in each.entries.values() if entry.best} == set(each.best)
    for each in model.headlines:
        most = max(each.entries, key=lambda label: each.entries[label].value.mean)
        assert most in each.best or len(each.entries) == 1


def test_models_that_lack_different_numbers_stand_beside_each_other() -> None:
    good, bad = (True,) * 30 + (False,) * 10, (False,) * 40
    model = model_of(run_of([(1, bad), (2, good), (2, bad), (3, good)]))
    assert [(each.counts, each.best) for each in model.rows if each.task == "t"] == [
        ([1], []),
        ([2], ["s1"]),
        ([3], []),
    ]
    assert model.order == ["s3", "s1", "s2", "s0"]
    assert {each.amount for each in model.rows} == {"parameters=0.5"}
    entries = {label: entry for each in model.rows if each.task == "t" for label, entry in each.entries.items()}
    assert all(entry.to_random is None for entry in entries.values())


def test_terminal_and_page_mark_the_same() -> None:
    good, bad = (True,) * 30 + (False,) * 10, (False,) * 30 + (True,) * 10
    results = run_of([(1, bad), (2, good), (2, bad), (2, good), (3, good)]).results()
    best = [label for _, each in results.everything for label in each.best]
    assert best == ["s1", "s3"] * 2
    table = side_by_side(results, results.model)
    marked = [cell for row in table.rows for cell in row if cell.best]
    assert len(marked) == len(best)
    document = re.sub(r"<p class=.note.>.*?</p>", "", page(results))
    bars = [label for model in results.models.values() for each in model.headlines for label in each.best]
    assert document.count('<span class="first">') == len(best) + len(bars)


@pytest.mark.parametrize("healers", [[], ["linear"]])
def test_a_grid_is_compared_in_the_same_way(tmp_path: Path, healers: list[str]) -> None:
    """All pairs of contenders, healed ones among them; the error holds draws of text and documents."""
    results = findings(tmp_path, repeats=3, healers=healers, counts=[3], ratios=[])
    each = row(results, "mood", 3)
    assert len(each.entries) == len(results.design.scorers) * (1 + len(healers))
    estimates = {
        label: Estimate.of([measured("mood", round(90 - 100 * value)) for value in entry.values])
        for label, entry in each.entries.items()
    }
    models = {removal.label: removal.models for removal in results.models["one"].removals}
    pairs = list(combinations(estimates, 2))
    p_values = []
    for first, second in pairs:
        contenders = [results.design.contenders[label] for label in (first, second)]
        reads = all(each.healer or each.scorer not in results.design.blind for each in contenders)
        draws = [[model.draw for model in models[label]] for label in (first, second)]
        paired = (reads or contenders[0].scorer == contenders[1].scorer) and draws[0] == draws[1]
        p_values.append(difference(estimates[first], estimates[second], paired=paired).p)
    beaten = set()
    for (first, second), rejected in zip(pairs, multipletests(p_values, 0.05, "holm")[0], strict=True):
        if rejected:
            beaten.add(first if estimates[first].mean < estimates[second].mean else second)
    assert set(each.best) == each.entries.keys() - beaten
    assert 0 < len(each.best) < len(each.entries)
