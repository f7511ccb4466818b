"""The description of a grid, and the names of its cells."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from grids import BLOCKS, computed, layout
from hypothesis import given
from hypothesis import strategies as st

from layerimp.bench.cell_graph import Layout
from layerimp.bench.executors.worker import as_importance
from layerimp.bench.grid import RANDOM_DRAWS, Grid
from layerimp.errors import InputError
from layerimp.recipe import made, read_recipe
from layerimp.registry.catalog import registry
from layerimp.report.tables import named
from layerimp.scorer import Importance

GRIDS = Path(__file__).parents[1] / "benchmarks" / "grids"


def test_what_may_be_short_may_be_long() -> None:
    short = made(Grid, {"models": ["a/b"], "scorers": ["avss"], "ratios": [1, 0.25]})
    long = made(
        Grid,
        {
            "models": {"b": {"model": "a/b"}},
            "scorers": {"avss": {"name": "avss", "options": {}}},
            "ratios": [1, 0.25],
        },
    )
    assert short == long
    assert made(Grid, {"ratios": 0.5}).ratios == (0.5,)
    assert Grid.model_validate_json(short.model_dump_json()) == short


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ratios": [0]}, "neither a share between 0 and 1 nor a number of blocks"),
        ({"ratios": [1.5]}, "neither a share between 0 and 1 nor a number of blocks"),
        ({"ratios": 1.5}, "neither a share"),
        ({"ratios": [1, 1]}, "each is needed once"),
        ({"ratios": []}, "ratios"),
        ({"ratio": [0.25]}, "Did you mean 'ratios'"),
        ({"models": {}}, "at least one is needed"),
        ({"models": ["a/x", "b/x"]}, "two models have one label"),
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
        made(Grid, values)


def test_the_schema_knows_what_may_be_short() -> None:
    schema = Grid.model_json_schema()
    assert {"type": "array", "items": {"type": "string"}} in schema["properties"]["models"]["anyOf"]
    assert {"type": "array", "items": {"type": "string"}} in schema["properties"]["scorers"]["anyOf"]
    described = [*schema["properties"].values(), *schema["$defs"]["CalibrationSpec"]["properties"].values()]
    assert all(field.get("description") for field in described)


def test_ratios_in_words() -> None:
    assert [named(ratio) for ratio in (1, 2, 0.25, 1 / 3)] == ["1 block", "2 blocks", "25%", "33.33%"]


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_published_grids_are_sound(path: Path) -> None:
    grid = made(Grid, read_recipe(path))
    assert grid.repeats >= 5
    assert {"avss", "gbis", "lrp", "cim", "perplexity", "angular", "taylor"} <= grid.scorers.keys()
    assert {"random", "depth", "block-influence"} == grid.baselines.keys()
    for spec in grid.scorers.values():
        registry().options("scorer", spec.name, spec.options)


def test_a_model_of_its_own_mind() -> None:
    grid = made(
        Grid,
        {
            "models": {"a": None, "b": {"tasks": ["squad"], "calibration": {"source": "text.jsonl"}}},
            "tasks": ["mood"],
            "calibration": {"source": "other.jsonl"},
        },
    )
    assert (grid.recipe("a").tasks, grid.recipe("a").calibration.source) == (("mood",), "other.jsonl")
    assert (grid.recipe("b").tasks, grid.recipe("b").calibration.source) == (("squad",), "text.jsonl")


def test_random_is_drawn_five_times_and_depth_once() -> None:
    few, many = layout(repeats=1), layout(repeats=9)
    assert len(few.draws("random")) == RANDOM_DRAWS == 5
    assert len(many.draws("random")) == 9
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
    subjects = {label: one.model_copy(update=changes) for label, one in made_layout.models.items()}
    return made_layout.model_copy(update={"models": subjects})


def test_one_plan_serves_all_counts_where_plans_are_nested() -> None:
    nested, other = layout(ratios=[1, 2, 0.5]), layout(ratios=[1, 2, 0.5], pruners=["window"])
    keys = {nested.planning("one", "avss", 0, "lowest", ratio, BLOCKS).key for ratio in nested.grid.ratios}
    assert len(keys) == 1
    keys = {other.planning("one", "avss", 0, "window", ratio, BLOCKS).key for ratio in other.grid.ratios}
    assert len(keys) == 3
    assert nested.removed({"blocks": [7, 5, 3, 1]}, 2, BLOCKS) == (7, 5)


def test_a_layout_survives_its_store() -> None:
    one = layout(ratios=[1, 0.25])
    again = Layout.model_validate(one.model_dump(mode="json"))
    known = {cell.key: computed(cell) for cell in one.cells({}.get, "one").values()}
    assert again.cells(known.get, "one").keys() == one.cells(known.get, "one").keys()


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=5))
def test_an_importance_survives_its_store(scores: list[float]) -> None:
    one = Importance(scores=scores, columns={"twice": [2 * s for s in scores]}, spans={2: scores[1:]}, notes=["a note"])
    again = as_importance(json.loads(json.dumps(asdict(one))))
    assert (again.scores, dict(again.columns), dict(again.spans)) == (one.scores, dict(one.columns), dict(one.spans))
    assert list(again.notes) == list(one.notes)
