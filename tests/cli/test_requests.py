"""Options of the command line and a recipe file become one recipe, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.recipes import make_recipe
from typer.main import get_command

from layerimp.bench.grid import Grid
from layerimp.cli import app
from layerimp.cli.options import FIELDS
from layerimp.cli.requests import grid_from, recipe_from
from layerimp.errors import InputError, OptionError, UnknownNameError
from layerimp.recipe import CalibrationSpec, ComponentSpec, Recipe
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
        tasks=["a, b.yaml,,"],
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
    written.write_text(recipe_from(recipe_file, keep="agreement=0.9").model_dump_json())
    again = recipe_from(written, ratio=0.25)
    assert (again.ratio, again.keep, again.keep_of) == (0.25, None, "quality")


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


def test_options_win_over_what_a_model_of_a_grid_says(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    text = "{source: own.txt, samples: 32, packing: rows}"
    file.write_text(f"models: {{own: {{model: m, tasks: [a], calibration: {text}}}, plain: m}}\ntasks: [b]\n")

    def settings(**options: Any) -> list[tuple[Any, ...]]:
        grid = grid_from(file, **options)
        recipes = [grid.recipe(label) for label in ("own", "plain")]
        return [(recipe.tasks, recipe.calibration.source, recipe.calibration.samples) for recipe in recipes]

    assert settings() == [(("a",), "own.txt", 32), (("b",), None, 64)]
    assert settings(tasks=["c"]) == [(("c",), "own.txt", 32), (("c",), None, 64)]
    assert settings(samples=8) == [(("a",), "own.txt", 8), (("b",), None, 8)]
    assert settings(calibration="given.txt") == [(("a",), "given.txt", 32), (("b",), "given.txt", 64)]
    assert grid_from(file, samples=8).recipe("own").calibration.packing == "rows"


def test_a_model_of_a_grid_keeps_its_dtype_wherever_it_is(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("models: {small: {model: hub/small, dtype: bfloat16}, plain: hub/plain}\n")
    models = grid_from(file, model=["small=/here", "other=/there"]).models
    assert {label: (spec.model, spec.dtype) for label, spec in models.items()} == {
        "small": ("/here", "bfloat16"),
        "other": ("/there", None),
    }
    assert [spec.dtype for spec in grid_from(file, model=["/here"]).models.values()] == [None]
    assert [spec.dtype for spec in grid_from(file, model=["small=/here"], dtype="float32").models.values()] == [
        "float32"
    ]


def test_a_label_may_hold_a_dot() -> None:
    recipe = recipe_from(None, model="m", scorer=["v1.2=avss"], set_=["v1.2.site=mlp_out"])
    assert recipe.scorers == {"v1.2": ComponentSpec(name="avss", options={"site": "mlp_out"})}


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"scorer": ["avss", "avss"]}, OptionError, "'avss' comes twice.*--scorer LABEL=avss"),
        (
            {"evaluator": ["x=harness", "x=footprint"]},
            OptionError,
            "evaluator 'x' comes twice; give another label: --eval",
        ),
        ({"scorer": ["original=avss"]}, OptionError, "'original' cannot be a label"),
        ({"scorer": ["../up=avss"]}, OptionError, "'../up' cannot be a label"),
        ({"scorer": ["..=avss"]}, OptionError, "'..' cannot be a label"),
        ({"scorer": ["all=avss"]}, OptionError, "'all' stands for every scorer, and takes no label"),
        ({"scorer": ["x=all"]}, OptionError, "'all' stands for every scorer, and takes no label"),
        ({"scorer": ["all"], "set_": ["all.window=2"]}, OptionError, "takes no label and no options"),
        ({"baselines": ["all"]}, OptionError, "'all' cannot be a baseline"),
        ({"baselines": ["original"]}, OptionError, "'original' cannot be a label"),
        ({"blocks": "3,x"}, OptionError, "--blocks takes blocks such as 5,8-10, got '3,x': 'x' is no block"),
        ({"protect": "1.5"}, OptionError, "--protect takes blocks such as 5,8-10, got '1.5': '1.5' is no block"),
        ({"protect": "17/18"}, OptionError, "'17/18' is no block; a block is a whole number, and only whole blocks"),
        ({"set_": ["avss.site"]}, OptionError, "--set takes LABEL.OPTION=VALUE"),
        ({"set_": ["site=x.y"]}, OptionError, "--set takes LABEL.OPTION=VALUE"),
        ({"scorer": ["avss"], "set_": ["avs.site=x"]}, UnknownNameError, "unknown label 'avs' .*Did you mean 'avss'"),
        ({"set_": ["harness.allow_task_code=true"]}, InputError, "give the flag --allow-task-code"),
        ({"set_": ["avss.x={a: [trust_remote_code: 1]}"]}, InputError, "give the flag --trust-remote-code"),
        ({"ratio": 0.0}, OptionError, r"^ratio 0\.0 is not between 0 and 1$"),
        ({"ratio": float("nan")}, OptionError, "^ratio nan is not between 0 and 1$"),
        ({"count": 0}, OptionError, "count: .*greater than or equal to 1, got 0"),
        ({"batch_size": 0}, OptionError, "batch_size: "),
        ({"limit": ["0"]}, OptionError, "--limit takes a number of documents, or NAME=NUMBER .*, got '0'"),
        ({"limit": ["blimp=many"]}, OptionError, "--limit takes a number of documents, or NAME=NUMBER .*'blimp=many'"),
        ({"limit": ["5", "6"]}, OptionError, "--limit 6: there are two limits of all tasks"),
        ({"limit": ["a=5", "a=6"]}, OptionError, "--limit a=6: there are two limits of a"),
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


@pytest.mark.parametrize("value", ["true", "[true]", "{a: 1, a: 2}"])
def test_a_setting_is_read_as_strictly_as_a_file(value: str) -> None:
    recipe = recipe_from(scorer=["avss"], set_=[f"avss.epsilon={value}"])
    with pytest.raises(OptionError, match=r"option 'epsilon' of scorer 'avss': "):
        registry().options("scorer", "avss", recipe.scorers["avss"].options)


def test_limits_are_of_all_tasks_or_of_named_ones(tmp_path: Path) -> None:
    recipe = recipe_from(limit=["200", "blimp=670", "my=task=3"])
    assert (recipe.limit, recipe.limits) == (200, {"blimp": 670, "my=task": 3})
    assert (recipe_from(limit=["a=5"]).limit, recipe_from().limits) == (None, {})
    (tmp_path / "r.yaml").write_text("model: m\nlimit: 7\nlimits: {a: 1}\n")
    recipe = recipe_from(tmp_path / "r.yaml", limit=["b=2"])
    assert (recipe.limit, recipe.limits) == (7, {"b": 2})
    assert grid_from(model=["m"], limit=["b=2"]).limits == {"b": 2}


@pytest.mark.parametrize("tasks", [",", "", " , ,"])
def test_tasks_that_name_none_are_refused(tasks: str) -> None:
    with pytest.raises(OptionError, match="--tasks takes names with commas between, or none alone, got "):
        recipe_from(tasks=[tasks])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("[]", ()),
        ("5", (5,)),
        ("[5, 3]", (5, 3)),
        ("5,17-18", (5, 17, 18)),
    ],
)
def test_what_goes_can_be_said_in_several_ways(tmp_path: Path, said: str, expected: tuple[int, ...]) -> None:
    (tmp_path / "r.yaml").write_text(f"model: m\nblocks: {said}\n")
    made = recipe_from(tmp_path / "r.yaml")
    assert made.blocks == expected
    again = tmp_path / "again.json"
    again.write_text(made.model_dump_json())
    assert recipe_from(again) == made
    if "[" not in said:
        assert recipe_from(None, model="m", blocks=said) == made


def test_tasks_can_be_none() -> None:
    assert recipe_from(None, tasks=["none"]).tasks == ()
    assert recipe_from(None, tasks=["a, b", "c"]).tasks == ("a", "b", "c")
    assert recipe_from(None).tasks is None


@pytest.mark.parametrize(("command", "kind"), [("run", Recipe), ("bench", Grid)])
def test_an_option_sets_every_field(command: str, kind: type[Recipe | Grid]) -> None:
    """The help of an option that takes what its field takes is the description of the field."""
    options = {option.name: option for option in get_command(app).commands[command].params}
    fields = {FIELDS.get(name, name) if name not in kind.model_fields else name: name for name in options}
    # --limit sets both limits, and --keep says as well what the share is of, --scorer best brings a pruner.
    set_by_others = {"keep_of", "own_pruners"}
    assert kind.model_fields.keys() - fields.keys() - set_by_others == {"schema_version", "limits"}
    for name in ("num_fewshot", "batch_size", "heal_text"):
        description = kind.model_fields[name].description
        assert description
        assert options[name].help.startswith(description)
    default = ", ".join(kind.model_fields["scorers"].get_default())
    assert options["scorer"].help.endswith(f" Default: {default}.")
    assert options["batch_size"].help.endswith(" Default: 8.")
    assert options["seed"].help.endswith(" Default: 0.")
