"""Recipes from files and the command line, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from layerimp.assets import Assets
from layerimp.bench.grid import Grid
from layerimp.cli.requests import recipe_from
from layerimp.errors import InputError, OptionError, UnknownNameError
from layerimp.pipeline.resolve import resolve
from layerimp.recipe import CalibrationSpec, ComponentSpec, Recipe, made, make_recipe, read_recipe
from layerimp.registry.catalog import registry


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: from-file\n"
        "ratio: 0.5\n"
        "scorers:\n  paper: {name: avss, options: {variant: paper, site: block_out}}\n  step:\n"
        "pruner: lowest\n"
        "tasks: [sst2]\n"
        "calibration: {source: text.jsonl, samples: 3}\n"
    )
    return path


def test_a_model_is_enough() -> None:
    recipe = make_recipe({"model": "m"})
    assert recipe.scorers == {"avss": ComponentSpec(name="avss")}
    assert recipe.pruner == ComponentSpec(name="lowest")
    assert list(recipe.evaluators) == ["harness", "footprint"]
    assert list(recipe.baselines) == ["random", "depth"]
    assert not recipe.names_amount
    assert recipe.verify
    assert not recipe.overwrite


def test_a_file_is_read(recipe_file: Path) -> None:
    recipe = recipe_from(recipe_file)
    assert recipe.model == "from-file"
    assert recipe.scorers == {
        "paper": ComponentSpec(name="avss", options={"variant": "paper", "site": "block_out"}),
        "step": ComponentSpec(name="step"),
    }
    assert recipe.calibration == CalibrationSpec(source="text.jsonl", samples=3)
    assert recipe.tasks == ("sst2",)


def test_a_recipe_survives_its_own_file(recipe_file: Path, tmp_path: Path) -> None:
    recipe = recipe_from(recipe_file, task_path=Path("tasks"), output=Path("out"))
    again = tmp_path / "again.json"
    again.write_text(json.dumps(recipe.model_dump(mode="json"), allow_nan=False))
    assert recipe_from(again) == recipe


@pytest.mark.parametrize(
    "scorers",
    [["avss", "step"], {"avss": None, "step": {}}, {"avss": "avss", "step": {"name": "step"}}],
    ids=["list", "bare labels", "named"],
)
def test_scorers_can_be_said_in_several_ways(scorers: Any) -> None:
    recipe = make_recipe({"model": "m", "scorers": scorers})
    assert recipe.scorers == {"avss": ComponentSpec(name="avss"), "step": ComponentSpec(name="step")}


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


def test_an_option_of_one_of_all_names_it() -> None:
    recipe = recipe_from(None, model="m", scorer=["all"], set_=["angular.window=2", "angular.tokens=all"])
    assert recipe.scorers == {
        "all": ComponentSpec(name="all"),
        "angular": ComponentSpec(name="angular", options={"window": 2, "tokens": "all"}),
    }
    with pytest.raises(UnknownNameError, match="unknown label 'angulr'"):
        recipe_from(None, model="m", scorer=["all"], set_=["angulr.window=2"])


def test_the_command_line_wins(recipe_file: Path) -> None:
    recipe = recipe_from(
        recipe_file,
        model="from-flag",
        scorer=["mine=avss", "step"],
        evaluator=["footprint"],
        pruner="greedy",
        ratio=0.25,
        tasks="a, b.yaml,,",
        blocks="3, 5",
        protect="0",
        samples=9,
        seed=None,
        overwrite=True,
        no_verify=True,
    )
    assert recipe == Recipe(
        model="from-flag",
        scorers={"mine": {"name": "avss"}, "step": {}},
        evaluators={"footprint": {}},
        pruner={"name": "greedy"},
        ratio=0.25,
        tasks=("a", "b.yaml"),
        blocks=(3, 5),
        protect=(0,),
        calibration={"source": "text.jsonl", "samples": 9},
        overwrite=True,
        verify=False,
    )


def test_an_amount_of_the_command_line_replaces_that_of_a_file(recipe_file: Path, tmp_path: Path) -> None:
    assert recipe_from(recipe_file).ratio == 0.5
    by_count = recipe_from(recipe_file, count=2)
    assert (by_count.ratio, by_count.count, by_count.names_amount) == (None, 2, True)
    written = tmp_path / "by-count.json"
    written.write_text(by_count.model_dump_json())
    assert recipe_from(written) == by_count
    again = recipe_from(written, ratio=0.25)
    assert (again.ratio, again.count) == (0.25, None)


@pytest.mark.parametrize(
    ("setting", "home", "expected"),
    [
        ("paper.site=mlp_out", "scorers", {"variant": "paper", "site": "mlp_out"}),
        ("paper.epsilon=0.5", "scorers", {"variant": "paper", "site": "block_out", "epsilon": 0.5}),
        ("lowest.keep=[1, 2]", "pruner", {"keep": [1, 2]}),
        ("harness.quick=true", "evaluators", {"quick": True}),
        ("harness.text=a=b.c", "evaluators", {"text": "a=b.c"}),
        ("harness.text=[", "evaluators", {"text": "["}),
        ("harness.text=2024-13-45", "evaluators", {"text": "2024-13-45"}),
    ],
)
def test_settings_find_their_home(recipe_file: Path, setting: str, home: str, expected: dict[str, Any]) -> None:
    recipe = recipe_from(recipe_file, set_=[setting])
    part = getattr(recipe, home)
    assert (part if home == "pruner" else part[setting.split(".")[0]]).options == expected


def test_a_label_may_hold_a_dot() -> None:
    recipe = recipe_from(None, model="m", scorer=["v1.2=avss"], set_=["v1.2.site=mlp_out"])
    assert recipe.scorers == {"v1.2": ComponentSpec(name="avss", options={"site": "mlp_out"})}


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"scorer": ["avss", "avss"]}, OptionError, "'avss' comes twice.*--scorer LABEL=avss"),
        ({"evaluator": ["x=harness", "x=footprint"]}, OptionError, "evaluator 'x' comes twice"),
        ({"scorer": ["original=avss"]}, OptionError, "'original' cannot be a label"),
        ({"scorer": ["../up=avss"]}, OptionError, "'../up' cannot be a label"),
        ({"scorer": ["..=avss"]}, OptionError, "'..' cannot be a label"),
        ({"scorer": ["all=avss"]}, OptionError, "'all' stands for every scorer, and takes no label"),
        ({"scorer": ["x=all"]}, OptionError, "'all' stands for every scorer, and takes no label"),
        ({"scorer": ["all"], "set_": ["all.window=2"]}, OptionError, "takes no label and no options"),
        ({"baselines": ["all"]}, OptionError, "'all' cannot be a baseline"),
        ({"baselines": ["original"]}, OptionError, "'original' cannot be a label"),
        (
            {"blocks": "3,x"},
            OptionError,
            "--blocks takes blocks and seams such as 5,8-10,17/18, got '3,x': 'x' is no block",
        ),
        ({"blocks": "17/19"}, OptionError, "17/19 is no seam, which lies between neighbours such as 17/18"),
        ({"blocks": "7.mlp"}, OptionError, "--blocks 7.mlp: without 7.mlp attention and MLP would not take turns"),
        ({"protect": "1.5"}, OptionError, "--protect takes whole blocks such as 0,15-17, got '1.5'"),
        ({"protect": "17/18"}, OptionError, "--protect takes whole blocks such as 0,15-17, got '17/18'"),
        ({"set_": ["avss.site"]}, OptionError, "--set takes LABEL.OPTION=VALUE"),
        ({"set_": ["site=x.y"]}, OptionError, "--set takes LABEL.OPTION=VALUE"),
        ({"set_": ["avs.site=x"]}, UnknownNameError, "unknown label 'avs' .*Did you mean 'avss'"),
        ({"set_": ["harness.allow_task_code=true"]}, InputError, "give the flag --allow-task-code"),
        ({"set_": ["avss.x={a: [trust_remote_code: 1]}"]}, InputError, "give the flag --trust-remote-code"),
        ({"ratio": 1.0}, OptionError, "^--ratio 1 is not between 0 and 1; a number of blocks is --count 1$"),
        ({"ratio": 0.0}, OptionError, r"^--ratio 0\.0 is not between 0 and 1$"),
        ({"ratio": float("nan")}, OptionError, "^--ratio nan is not between 0 and 1$"),
        ({"ratio": 0.25, "count": 1}, OptionError, "^ratio and count contradict each other; give one of them$"),
        ({"count": 0}, OptionError, "count: .*greater than or equal to 1, got 0"),
        ({"batch_size": 0}, OptionError, "batch_size: "),
        ({"limit": 0}, OptionError, "limit: "),
        ({"seed": -1}, OptionError, "seed: "),
        ({"calibration": {"source": "t", "samples": 0}}, OptionError, r"calibration\.samples: "),
        ({"calibration": {"source": "t", "packing": "x"}}, OptionError, "calibration.packing: .*'windows' or 'rows'"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(given: dict[str, Any], error: type[Exception], said: str) -> None:
    model = {"model": "m"} if given else {}
    fields = given.keys() & {"baselines", "calibration"}  # which no option sets as a whole
    with pytest.raises(error, match=said) as caught:
        make_recipe(model | given) if fields else recipe_from(None, **model, **given)
    assert "\n" not in str(caught.value)


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
        ("model: m\nratio: 1", "^ratio 1 is not between 0 and 1; a number of blocks is count: 1$"),
        ("model: m\nratio: 1.0", "^ratio 1 is not between 0 and 1; a number of blocks is count: 1$"),
        ("model: m\nratio: 3", "^ratio 3 is not between 0 and 1; a number of blocks is count: 3$"),
        ("model: m\nratio: 1.5", r"^ratio 1\.5 is not between 0 and 1$"),
        ("model: m\nratio: '1'", "ratio: .*less than 1, got '1'"),
        ("model: m\nratio: 0.5\ncount: 1", "^ratio and count contradict each other; give one of them$"),
        ("model: m\ncount: 0.5", "count: .*integer.*got 0.5"),
        ("model: m\nlimit: 1.5", "limit: .*integer"),
        ("model: m\nblocks: [a]", "^blocks takes blocks and seams such as 5,8-10,17/18, got 'a': 'a' is no block"),
        ("model: m\nblocks: [1.5]", "^blocks takes .* got '1.5'"),
        ("model: m\nblocks: {1: 2}", "blocks: .*tuple"),
        ("model: m\nblocks: 17/19", "^blocks takes .*17/19 is no seam"),
        ("model: m\nblocks: [5, 7.mlp]", "^blocks 5,7.mlp: without 7.mlp attention and MLP would not take turns"),
        ("model: m\nprotect: [5/6]", "protect.0: .*integer.*got '5/6'"),
        ("model: m\nscorers: avss", "scorers: .*dictionary"),
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


def test_a_calibration_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ncalibration: text.jsonl\n")
    for given in ({}, {"samples": 3}):
        with pytest.raises(OptionError, match="calibration"):
            recipe_from(path, **given)


@pytest.mark.parametrize("value", ["true", "[true]", "{a: 1, a: 2}"])
def test_a_setting_is_read_as_strictly_as_a_file(value: str) -> None:
    recipe = recipe_from(set_=[f"avss.epsilon={value}"])
    with pytest.raises(OptionError, match=r"option 'epsilon' of scorer 'avss': "):
        registry().options("scorer", "avss", recipe.scorers["avss"].options)


def test_a_grid_takes_no_boolean_for_a_number() -> None:
    with pytest.raises(OptionError, match="counts: a number is needed, and true is none"):
        made(Grid, {"models": ["m"], "counts": [True]})


@pytest.mark.parametrize("tasks", [",", "", " , ,"])
def test_tasks_that_name_none_are_refused(tasks: str) -> None:
    with pytest.raises(OptionError, match="--tasks takes names with commas between, or none, got "):
        recipe_from(tasks=tasks)


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


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("[]", ()),
        ("5", (5,)),
        ("[5, 3]", (5, 3)),
        ("[5, 17/18]", (5, "17/18")),
        ('[5, "17/18"]', (5, "17/18")),
        ("5,17/18", (5, "17/18")),
        ("[7.mlp, 8.attn, 3]", ("7/8", 3)),
        ("17/18, 17.attn, 18.mlp", ("17/18", "17.attn,18.mlp")),
        ('["17/18", "17.attn,18.mlp"]', ("17/18", "17.attn,18.mlp")),
    ],
)
def test_what_goes_can_be_said_in_several_ways(tmp_path: Path, said: str, expected: tuple[int | str, ...]) -> None:
    (tmp_path / "r.yaml").write_text(f"model: m\nblocks: {said}\n")
    made = recipe_from(tmp_path / "r.yaml")
    assert made.blocks == expected
    again = tmp_path / "again.json"
    again.write_text(made.model_dump_json())
    assert recipe_from(again) == made
    if "[" not in said:
        assert recipe_from(None, model="m", blocks=said) == made


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_recipe({"model": "m"}).model = "other"  # type: ignore[misc]


def test_what_is_left_open_is_settled() -> None:
    everything = resolve(make_recipe({}))
    assert (everything.model, everything.calibration.source) == ("starter", "starter")
    assert everything.tasks == ("starter_stories", "starter_sentiment", "starter_qa")
    own = resolve(make_recipe({"model": "m", "calibration": {"samples": 3}}))
    assert (own.calibration.source, own.calibration.samples, own.tasks) == ("prose", 3, everything.tasks)
    named = make_recipe({"model": "m", "calibration": {"source": "t.jsonl"}, "tasks": []})
    assert resolve(named) == named


def test_without_the_starter_there_are_no_tasks_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerimp.pipeline.resolve.assets", Assets)
    assert resolve(make_recipe({"model": "m"})).tasks == ()
    assert resolve(make_recipe({"model": "m", "tasks": ["t"]})).tasks == ("t",)


def test_tasks_can_be_none() -> None:
    assert recipe_from(None, tasks="none").tasks == ()
    assert recipe_from(None, tasks="a, b").tasks == ("a", "b")
    assert recipe_from(None).tasks is None


def test_a_shard_size_is_a_size() -> None:
    assert make_recipe({"max_shard_size": "1.5 GB"}).max_shard_size == "1.5GB"
    with pytest.raises(OptionError, match="max_shard_size 'big' is no size; give one such as 5GB or 500MB"):
        make_recipe({"max_shard_size": "big"})
