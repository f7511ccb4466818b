"""The description of a grid, and the names of its cells."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.grids import BLOCKS, computed, layout

from layerimp.bench.cell_graph import Layout
from layerimp.bench.executors.planning import as_importance
from layerimp.bench.grid import Grid
from layerimp.defaults import PAPER_SCORERS
from layerimp.errors import InputError, OptionError
from layerimp.recipe import read_recipe, validated
from layerimp.registry.catalog import registry
from layerimp.report.words import amount_name
from layerimp.scorer import Importance

GRIDS = Path(__file__).parents[2] / "benchmarks" / "grids"


def test_what_may_be_short_may_be_long() -> None:
    short = validated(Grid, {"models": ["a/b"], "scorers": ["avss"], "counts": 1, "ratios": 0.25})
    long = validated(
        Grid,
        {
            "models": {"b": {"model": "a/b"}},
            "scorers": {"avss": {"name": "avss", "options": {}}},
            "counts": [1],
            "ratios": [0.25],
        },
    )
    assert short == long
    assert Grid.model_validate_json(short.model_dump_json()) == short


@pytest.mark.parametrize(
    ("values", "amounts"),
    [
        ({}, (0.25,)),
        ({"counts": []}, (0.25,)),
        ({"counts": 2}, (2,)),
        ({"counts": [2, 1], "ratios": []}, (1, 2)),
        ({"ratios": [0.5, 0.25]}, (0.25, 0.5)),
        ({"ratios": [0.5, 0.25], "counts": [4, 1]}, (1, 4, 0.25, 0.5)),
    ],
    ids=str,
)
def test_counts_come_before_ratios(values: dict[str, Any], amounts: tuple[int | float, ...]) -> None:
    grid = validated(Grid, values)
    assert grid.amounts == amounts
    again = Grid.model_validate_json(grid.model_dump_json())
    assert [(each, type(each)) for each in again.amounts] == [(each, type(each)) for each in amounts]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ratios": [0.5, 3]}, "^ratio 3 is not between 0 and 1; a number of blocks is given as the count 3$"),
        ({"ratios": 1.0, "counts": 1}, "^ratio 1 is not between 0 and 1; a number of blocks is given as the count 1$"),
        ({"ratios": [0.5, 0.5]}, "ratios: each is needed once"),
        ({"counts": [1, 1]}, "counts: each is needed once"),
        ({"counts": [0]}, r"counts\.0: Input should be greater than or equal to 1, got 0"),
        ({"counts": 0.5}, r"counts\.0: Input should be a valid integer.*got 0\.5"),
        ({"ratios": []}, "^nothing is to be removed: give ratios or counts$"),
        ({"ratio": [0.25]}, "Did you mean 'ratios'"),
        ({"count": 1}, "Did you mean 'counts'"),
        ({"models": {}}, "at least one is needed"),
        ({"models": ["a/x", "b/x"]}, "two of the names have one label"),
        ({"models": {"original": "x"}}, "cannot be a label"),
        ({"models": {"a": {"modle": "x"}}}, "models.a.modle"),
        ({"scorers": []}, "at least one is needed"),
        ({"baselines": ["all"]}, "cannot be a baseline"),
        ({"repeats": 0}, "repeats"),
        ({"calibration": {"sampels": 3}}, "calibration.sampels"),
    ],
)
def test_what_is_wrong_is_said(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        validated(Grid, values)


def test_ratios_in_words() -> None:
    assert [amount_name(ratio) for ratio in (1, 2, 0.25, 1 / 3)] == ["1 block", "2 blocks", "25%", "33.33%"]


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_published_grids_are_sound(path: Path) -> None:
    grid = validated(Grid, read_recipe(path))
    assert grid.repeats >= 5
    if not grid.healers:  # those of the page that compares metrics
        assert {"avss", "gbis", "lrp", "cim", "perplexity", "angular", "taylor"} <= grid.scorers.keys()
        assert {"random", "depth", "block-influence"} == grid.baselines.keys()
    for spec in grid.scorers.values():
        registry().options("scorer", spec.name, spec.options)


def test_a_model_of_its_own_mind() -> None:
    grid = validated(
        Grid,
        {
            "models": {"a": None, "b": {"tasks": ["squad"], "calibration": {"source": "text.jsonl"}}},
            "tasks": ["mood"],
            "calibration": {"source": "other.jsonl"},
        },
    )
    assert (grid.recipe("a").tasks, grid.recipe("a").calibration.source) == (("mood",), "other.jsonl")
    assert (grid.recipe("b").tasks, grid.recipe("b").calibration.source) == (("squad",), "text.jsonl")


def test_random_is_drawn_more_often_and_depth_once() -> None:
    few, many = layout(repeats=1), layout(repeats=14)
    assert len(few.draws("random")) == 10
    assert len(layout(repeats=1, random_draws=3).draws("random")) == 3
    assert len(many.draws("random")) == 14
    assert len(few.draws("depth")) == len(many.draws("depth")) == 1
    assert few.scoring("one", "random", 0).key != few.scoring("one", "random", 1).key


def test_what_changes_a_score_changes_its_name() -> None:
    base = layout().scoring("one", "avss", 0)
    different = [
        layout(seed=9).scoring("one", "avss", 0),
        layout(calibration={"samples": 3}).scoring("one", "avss", 0),
        layout(scorers={"avss": {"options": {"site": "block_out"}}}).scoring("one", "avss", 0),
        layout().scoring("one", "avss", 1),
        _with_subject(text="other").scoring("one", "avss", 0),
        _with_subject(identity="other").scoring("one", "avss", 0),
    ]
    assert len({base.key, *(cell.key for cell in different)}) == 1 + len(different)
    # The draw of one repeat under another seed is that of another repeat: it is computed once for both.
    assert layout(seed=1).scoring("one", "avss", 0).key == layout().scoring("one", "avss", 1).key


def _with_subject(**changes: Any) -> Layout:
    made_layout = layout()
    subjects = {label: subject.model_copy(update=changes) for label, subject in made_layout.models.items()}
    return made_layout.model_copy(update={"models": subjects})


def test_one_plan_serves_all_counts_where_plans_are_nested() -> None:
    amounts: dict[str, Any] = {"counts": [1, 2], "ratios": [0.5]}
    nested, other = layout(**amounts), layout(**amounts, pruners=["window"])
    keys = {nested.planning("one", "avss", 0, "lowest", amount, BLOCKS).key for amount in nested.grid.amounts}
    assert len(keys) == 1
    keys = {other.planning("one", "avss", 0, "window", amount, BLOCKS).key for amount in other.grid.amounts}
    assert len(keys) == 3
    assert nested.removed({"blocks": [7, 5, 3, 1]}, 2, BLOCKS) == (7, 5)


def test_the_recommended_scorer_brings_its_pruner() -> None:
    made = layout(scorers=["best", "avss"], counts=[1])
    pruners = {
        scorer: made.planning("one", scorer, 0, "lowest", 1, BLOCKS).content["pruner"]
        for scorer in ("divergence", "avss")
    }
    assert pruners == {"divergence": "greedy", "avss": "lowest"}
    again = validated(Grid, made.grid.model_dump(mode="json"))
    assert again.own_pruners == made.grid.own_pruners
    assert again.healers == {}
    named = layout(scorers=["best", "avss"], pruners=["window"], counts=[1])
    assert named.planning("one", "divergence", 0, "window", 1, BLOCKS).content["pruner"] == "window"
    assert validated(Grid, {"scorers": ["divergence"]}).own_pruners == {}
    default = validated(Grid, {})
    assert list(default.scorers) == ["divergence", *PAPER_SCORERS]
    assert list(default.healers) == ["linear"]
    with pytest.raises(OptionError, match="no scorer has this label"):
        validated(Grid, {"scorers": ["avss"], "own_pruners": {"lrp": "greedy"}})


def test_a_count_and_the_ratio_that_comes_to_it_are_one_plan() -> None:
    assert BLOCKS * 0.25 == 2
    for pruner in ("lowest", "window"):
        by_count, by_ratio = layout(counts=[2], pruners=[pruner]), layout(ratios=[0.25], pruners=[pruner])
        keys = [
            each.planning("one", "avss", 0, pruner, each.grid.amounts[0], BLOCKS).key for each in (by_count, by_ratio)
        ]
        assert keys[0] == keys[1]


def test_cells_are_described_in_words() -> None:
    made_layout = layout(counts=[1])
    measure = made_layout.models["one"].measures[0]
    descriptions = [str(made_layout.evaluation("one", blocks, measure)) for blocks in ((), (3,), (5, 3))]
    assert descriptions == [
        "evaluate mood on one (intact)",
        "evaluate mood on one without block 3",
        "evaluate mood on one without blocks 3, 5",
    ]
    planning = made_layout.planning("one", "avss", 0, "lowest", 1, BLOCKS)
    assert str(planning) == "plan the removal of 1 block of one by avss"


def test_a_layout_survives_its_store() -> None:
    made_layout = layout(counts=[1], ratios=[0.25])
    again = Layout.model_validate(made_layout.model_dump(mode="json"))
    known = {cell.key: computed(cell) for cell in made_layout.cells({}.get, "one").values()}
    assert again.cells(known.get, "one").keys() == made_layout.cells(known.get, "one").keys()


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=5))
def test_an_importance_survives_its_store(scores: list[float]) -> None:
    importance = Importance(
        scores=scores, columns={"twice": [2 * s for s in scores]}, spans={2: scores[1:]}, notes=["a note"]
    )
    again = as_importance(json.loads(json.dumps(asdict(importance))))
    assert (again.scores, dict(again.columns), dict(again.spans)) == (
        importance.scores,
        dict(importance.columns),
        dict(importance.spans),
    )
    assert list(again.notes) == list(importance.notes)
