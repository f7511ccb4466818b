"""Recipes: what a file says, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.recipes import make_recipe

import layerimp
from layerimp.bench.grid import Grid
from layerimp.cli.requests import recipe_from
from layerimp.errors import InputError, OptionError
from layerimp.recipe import ComponentSpec, Recipe, read_recipe, validated


def test_a_model_is_enough() -> None:
    recipe = make_recipe({"model": "m"})
    assert recipe.is_recommended
    assert recipe.model_dump(include={"scorers", "pruner", "healers"}) == {
        "scorers": {"divergence": {"name": "divergence", "options": {}}},
        "pruner": {"name": "greedy", "options": {"rescored": 3}},
        "healers": {"linear": {"name": "linear", "options": {}}},
    }
    assert list(recipe.evaluators) == ["harness", "footprint", "fidelity"]
    assert list(recipe.baselines) == ["random", "depth"]
    assert not recipe.names_amount
    assert recipe.verify
    assert not recipe.overwrite


@pytest.mark.parametrize(
    "scorers",
    [["avss", "step"], {"avss": None, "step": {}}, {"avss": "avss", "step": {"name": "step"}}],
    ids=["list", "bare labels", "named"],
)
def test_scorers_can_be_said_in_several_ways(scorers: Any) -> None:
    recipe = make_recipe({"model": "m", "scorers": scorers})
    assert recipe.scorers == {"avss": ComponentSpec(name="avss"), "step": ComponentSpec(name="step")}


@pytest.mark.parametrize(
    ("field", "component"),
    [("scorers", {"avss": {"site": "block_out"}}), ("pruner", {"name": "avss", "site": "block_out"})],
)
def test_options_beside_the_name_are_answered_with_how_they_are_written(field: str, component: Any) -> None:
    written = r"'avss' has the fields name and options; options are written \{'options': \{'site': 'block_out'\}\}"
    with pytest.raises(OptionError, match=written):
        Recipe.model_validate({field: component})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("baselines: []", {}),
        ("baselines: {}", {}),
        ("baselines: [depth]", {"depth": ComponentSpec(name="depth")}),
        (
            "baselines: {one: {name: random, options: {seed: 1}}, random: }",
            {"one": ComponentSpec(name="random", options={"seed": 1}), "random": ComponentSpec(name="random")},
        ),
    ],
)
def test_baselines_are_chosen_like_scorers(tmp_path: Path, said: str, expected: dict[str, ComponentSpec]) -> None:
    (tmp_path / "r.yaml").write_text(f"model: m\n{said}\n")
    assert recipe_from(tmp_path / "r.yaml").baselines == expected
    assert recipe_from(tmp_path / "r.yaml", no_baselines=True).baselines == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a mapping"),
        ("- model", "not a mapping"),
        ("model: [", "is not YAML"),
        ("model: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("\x07", "is not YAML"),
        ("model: m\nratoi: 0.5", "unknown recipe field 'ratoi'.*Did you mean 'ratio'"),
        ("model: m\ncalibration: {sampels: 3, source: t}", "Did you mean 'samples'|Did you mean 'calibration.samples'"),
        ("model: m\nscorers: {a: {nam: avss}}", "Did you mean '(scorers.a.)?name'"),
        ("model: null", "model: .*string"),
        ("model: m\nschema_version: layerimp.recipe/2", "schema_version: .*layerimp.recipe/1"),
        ("model: m\nratio: much", "ratio: .*number.*got 'much'"),
        ("model: m\nratio: 1", "^ratio 1 is not between 0 and 1; a number of blocks is given as the count 1$"),
        ("model: m\nratio: '1'", "ratio: .*less than 1, got '1'"),
        ("model: m\nratio: 0.5\ncount: 1", "^ratio and count contradict each other; give one of them$"),
        ("model: m\ncount: 0.5", "count: .*integer.*got 0.5"),
        ("model: m\nlimit: 1.5", "limit: .*integer"),
        ("model: m\nblocks: [a]", "^blocks takes blocks such as 5,8-10, got 'a': 'a' is no block"),
        ("model: m\nblocks: [1.5]", "^blocks takes .* got '1.5'"),
        ("model: m\nblocks: {1: 2}", "blocks: .*a list"),
        ("model: m\nblocks: [5, 7.mlp]", "^blocks takes blocks such as 5,8-10, got '5,7.mlp': '7.mlp' is no block"),
        ("model: m\nprotect: [5/6]", "protect.0: .*integer.*got '5/6'"),
        ("model: m\nscorers: avss", "scorers: .*mapping of names to values"),
        ("model: m\nscorers: {a: [1]}", r"scorers\.a: "),
        ("model: m\nscorers: [{nam: avss}]", "scorers"),
        ("model: m\n3: 4", "3"),
        ("model: m\nseed: 1\nseed: 2", "is not YAML: .*'seed' is there twice"),
        ("model: m\ncalibration: {source: t, samples: 3, source: u}", "'source' is there twice"),
        ('{"model": "m", "model": "n"}', "'model' is there twice"),
        ("model: m\ncount: true", "count: a number is needed, and true is none"),
        ("model: m\nseed: no", "seed: a number is needed, and false is none"),
        ("model: m\nratio: true", "^ratio: .*got True"),
        ("model: m\nblocks: [true]", "'True' is no block"),
        ("model: m\nprotect: [1, true]", "protect: a number is needed, and true is none"),
        ("model: m\ncalibration: {samples: true}", "calibration.samples: a number is needed, and true is none"),
        ("model: 2024-13-45", "is not YAML|month"),
        ("model: m\ntasks: &a [*a]", "tasks|itself|YAML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        recipe_from(path)
    assert "\n" not in str(caught.value)


def test_all_json_is_read(tmp_path: Path) -> None:
    """YAML knows neither tabs nor pairs of surrogates, which is how `json.dumps` writes the name of such a file."""
    path = tmp_path / "recipe.json"
    recipe = {"model": "m", "calibration": {"source": "/texts/\N{GRINNING FACE}.jsonl"}}
    path.write_text(json.dumps(recipe, indent="\t"))
    assert read_recipe(path) == recipe


def test_one_value_may_have_several_aliases(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("scorers: {a: {name: avss, options: &o {site: block_out}}, b: {name: avss, options: *o}}")
    assert {spec.options["site"] for spec in recipe_from(path).scorers.values()} == {"block_out"}


def test_a_calibration_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ncalibration: text.jsonl\n")
    for given in ({}, {"samples": 3}):
        with pytest.raises(OptionError, match="calibration"):
            recipe_from(path, **given)


def test_a_grid_takes_no_boolean_for_a_number() -> None:
    with pytest.raises(OptionError, match="counts: a number is needed, and true is none"):
        validated(Grid, {"models": ["m"], "counts": [True]})


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the recipe .*absent.yaml: No such file"):
        read_recipe(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9")
    with pytest.raises(InputError, match=r"latin.yaml is not YAML"):
        read_recipe(tmp_path / "latin.yaml")


@pytest.mark.parametrize("permission", ["trust_remote_code", "allow_task_code"])
@pytest.mark.parametrize(
    "text",
    [
        "{p}: true",
        "{p}: false",
        "evaluators: {{harness: {{options: {{{p}: true}}}}}}",
        "scorers: {{avss: {{options: {{deep: [[{{{p}: 1}}]]}}}}}}",
        "base: &b {{{p}: true}}\nevaluators: {{harness: {{options: *b}}}}",
        "evaluators: {{harness: {{options: {{<<: {{{p}: true}}}}}}}}",
    ],
)
def test_a_file_cannot_allow_code(tmp_path: Path, text: str, permission: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\n" + text.format(p=permission))
    with pytest.raises(InputError, match=f"cannot switch on {permission}; give the flag --"):
        recipe_from(path)


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_recipe({"model": "m"}).model = "other"  # type: ignore[misc]


def test_what_is_no_recipe_is_named(tmp_path: Path) -> None:
    for use in (layerimp.run, layerimp.evaluate):
        for given in ({"model": "x"}, "x", None):
            with pytest.raises(OptionError, match=rf"a layerimp\.Recipe is needed, got a {type(given).__name__}"):
                use(given)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"a layerimp\.Grid is needed, got a Recipe"):
        layerimp.run_grid(layerimp.Recipe(), tmp_path)  # type: ignore[arg-type]
    for healers in ({}, {"linear": "linear"}):
        grid = layerimp.Grid(heal_text="prose", healers=healers)  # type: ignore[arg-type]
        with pytest.raises(
            OptionError, match="heal_text is read only by a healer that trains: name one as well, such as distill"
        ):
            layerimp.run_grid(grid, tmp_path / "grid")
    assert not (tmp_path / "grid").exists()
