"""Whatever a command prints or writes as JSON is what its published JSON Schema says, and no key more."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
import yaml
from jsonschema import ValidationError
from support.fake_plugins import Install
from support.mood import Run, mood
from support.published import checked, name_of, published
from typer.main import get_command

import layerimp
from layerimp.bench.grid import Grid
from layerimp.cli import app
from layerimp.cli.schema import DESCRIBED, schema_of
from layerimp.errors import InputError
from layerimp.pruner import PrunePlan
from layerimp.recipe import CalibrationSpec, Recipe, validated
from layerimp.registry.names import installed_names

SMALL = "--calibration TEXT --samples 8 --max-length 16"
RUN = f"run --model MODEL {SMALL} --tasks TASK"
BENCH = f"bench --model MODEL {SMALL} --scorer avss --random-draws 2 --tasks TASK --output OUT"
PRINTED = [
    (f"shrink MODEL {SMALL} --tasks TASK --count 1 --minutes 0 --output OUT", "shrink"),
    (f"shrink MODEL {SMALL} --count 1 --output OUT --dry-run", "forecast"),
    ("inspect MODEL", "inspection"),
    (f"{RUN} --scorer angular --set angular.window=2 --heal linear --ratio 0.25 --output OUT", "results"),
    (f"{RUN} --scorer block-influence --cuts all --count 1 --no-baselines", "results"),
    (f"{RUN} --target bytes=0.9 --no-baselines --output OUT", "results"),
    (f"{RUN} --dry-run", "forecast"),
    (f"score --model MODEL {SMALL} --scorer all --output OUT", "results"),
    (f"score --model MODEL {SMALL} --scorer block-influence --by sublayer", "results"),
    ("prune --model MODEL --blocks 1,2 --output OUT", "results"),
    ("prune --model MODEL --blocks 1 --output OUT --dry-run", "forecast"),
    (f"heal --model PRUNED {SMALL} --output OUT", "healing"),
    (f"heal --model PRUNED {SMALL} --output OUT --dry-run", "healing-forecast"),
    ("evaluate --model MODEL --tasks TASK --output OUT", "results"),
    ("compare MODEL PRUNED --text TEXT --max-length 40 --set fidelity.rows=2 --tasks TASK --output OUT", "comparison"),
    ("plan --plan PLAN", "plans"),
    (f"{BENCH} --repeats 2 --heal rescale --workers 0", "results"),
    (f"{BENCH} --dry-run", "grid-forecast"),
    ("report GRID --format json", "results"),
    ("report PRUNED_RUN --format json", "results"),
    ("plugins", "plugins"),
    ("scorers", "components"),
    ("scorers avss", "components"),
    ("pruners", "components"),
    ("healers", "components"),
    ("evaluators", "components"),
    ("tasks", "tasks"),
    ("tasks --show layerimp_sst2", "task-details"),
    ("tasks --fetch OUT starter_qa", "rows"),
    ("schema", "schemas"),
    ("cache", "cache"),
    ("cache --clear all", "cache"),
    ("run --model nowhere", "error"),
    ("run --colour red", "error"),
]  # fmt: skip
OF_OTHERS = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
"""What Transformers writes into a checkpoint."""


@pytest.fixture(scope="session")
def before(model_dir: Path, calibration_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What commands start from: a pruned model, a file of plans, and the output of a grid."""
    out = tmp_path_factory.mktemp("before")
    text = {"source": str(calibration_file), "samples": 8, "max_length": 16}
    model, calibration = str(model_dir), CalibrationSpec.model_validate(text)
    layerimp.run(Recipe(model=model, scorers=["avss"], calibration=calibration, count=1, tasks=(), output=out / "run"))
    tasks = [str(mood(out))]
    sizes = {"repeats": 1, "random_draws": 1}
    grid = validated(Grid, {"models": model, "calibration": text, "scorers": ["avss"], "tasks": tasks} | sizes)
    layerimp.run_grid(grid, out / "grid", workers=0)
    return {
        "PRUNED": out / "run" / "checkpoints" / "avss",
        "PRUNED_RUN": out / "run",
        "PLAN": out / "run" / "plan.json",
        "GRID": out / "grid",
    }


@pytest.fixture
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerimp.evaluation.speed.ROUNDS", 2)


@pytest.mark.usefixtures("_few_rounds")
@pytest.mark.parametrize(("line", "expected"), PRINTED, ids=[line for line, _ in PRINTED])
def test_what_a_command_prints_and_writes(
    line: str,
    expected: str,
    layerimp_command: Run,
    model_dir: Path,
    calibration_file: Path,
    task: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    out_dir = tmp_path / "out"
    places = {"MODEL": model_dir, "TEXT": calibration_file, "TASK": task, "OUT": out_dir}
    if {"PRUNED", "PRUNED_RUN", "PLAN", "GRID"} & set(line.split()):
        places |= request.getfixturevalue("before")
    words = [places.get(word, word) for word in shlex.split(line)]
    code, out, err = layerimp_command(*words, *([] if "--format" in words else ["--json"]))
    assert (code == 0) == (expected != "error"), err
    document = checked(out)
    assert name_of(document) == expected
    if expected == "results":
        published(name_of(document["request"])).validate(document["request"])
    for path in out_dir.rglob("*.json"):
        if path.name not in OF_OTHERS:
            checked(path.read_text())
    for download in downloads(out_dir):
        checked(download)


def downloads(directory: Path) -> Iterator[str]:
    """The JSON that pages offer."""
    for page in directory.glob("report.html"):
        for content in re.findall(r"data:application/json;charset=utf-8;base64,([^\"]+)", page.read_text()):
            yield base64.b64decode(content).decode()


def test_every_command_that_prints_json_is_tried() -> None:
    commands = get_command(app).commands
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
    }
    printing = {name for name, known in options.items() if known & {"--json", "--format"}}
    assert {line.split()[0] for line, _ in PRINTED} == printing == set(commands)


def test_every_schema_is_of_something(layerimp_command: Run) -> None:
    """What no command prints is written by one, or read."""
    printed = {expected for _, expected in PRINTED}
    assert set(DESCRIBED) - printed == {"recipe", "grid", "plan", "checkpoint"}
    out, _ = layerimp_command.done("schema")
    assert [line.partition(":")[0] for line in out.splitlines()] == list(DESCRIBED)
    code, out, _ = layerimp_command("schema", "grid")
    assert (code, json.loads(out)) == (0, published("grid").schema)
    code, _, err = layerimp_command("schema", "gird")
    assert (code, "grid" in err) == (2, True)


def test_a_single_plan() -> None:
    plan = PrunePlan(num_blocks=4, blocks=[3, "0/1"], reason="why", scorer="avss", pruner="lowest", model="m")
    published("plan").validate(plan.model_dump(mode="json"))


def parts(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping in a schema, with its place."""
    if isinstance(schema, dict):
        yield where, schema
        for key, value in schema.items():
            yield from parts(value, f"{where}/{key}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from parts(value, f"{where}/{number}")


@pytest.mark.parametrize("name", DESCRIBED)
def test_no_key_is_unknown_or_unexplained(name: str) -> None:
    schema = published(name).schema
    assert schema["description"]
    for where, part in parts(schema):
        if not isinstance(part.get("properties"), dict):
            continue
        by_label = isinstance(part["additionalProperties"], dict)
        assert by_label or part["additionalProperties"] is False, where
        for key, value in part["properties"].items():
            field = value | schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
            assert by_label or field.get("description"), f"{where}: {key}"


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "model: elsewhere/model",
        "pruner: lowest",
        "pruner: {name: window}",
        "scorers: [avss, lrp]",
        "scorers: [all]",
        "scorers: {avss: }",
        "scorers: {avss: {options: {variant: paper}}, mine: theirs, paper: {name: avss}}",
        "scorers: [of-a-stranger]",
        "pruner: of-a-stranger",
        "healers: {linear: }",
        "evaluators: [harness]",
        "targets: {bytes: 6GB, latency: 0.7}",
        "blocks: 3",
        "blocks: [3, 17/18]",
        "calibration: {source: prose, samples: 8}",
        "tasks: []",
        "output: out",
    ],
)
def test_what_a_recipe_may_say(text: str) -> None:
    values = yaml.safe_load(text)
    published("recipe").validate(values)
    written = validated(Recipe, values).model_dump(mode="json")
    published("recipe").validate(written)


@pytest.mark.parametrize(
    "text",
    [
        "models: elsewhere/model",
        "models: [one, two]",
        "models: {one: , two: elsewhere, three: {dtype: float32, tasks: [mood.yaml]}}",
        "{counts: 1, ratios: [0.5]}",
        "pruners: {greedy: {options: {exchange: true}}}",
    ],
)
def test_what_a_grid_may_say(text: str) -> None:
    values = yaml.safe_load(text)
    published("grid").validate(values)
    published("grid").validate(validated(Grid, values).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Recipe, "colour: red"),
        (Recipe, "scorers: {avss: {nmae: lrp}}"),
        (Recipe, "pruner: {options: {}}"),
        (Recipe, "calibration: {sample: 8}"),
        (Recipe, "ratio: 2"),
        (Recipe, "device_map: some"),
        (Grid, "models: {one: {colour: red}}"),
        (Grid, "counts: [0]"),
    ],
)
def test_what_is_refused_is_refused_by_both(kind: type[Any], text: str) -> None:
    values = yaml.safe_load(text)
    with pytest.raises(InputError):
        validated(kind, values)
    with pytest.raises(ValidationError):
        published("recipe" if kind is Recipe else "grid").validate(values)


def test_the_recipes_of_the_pages() -> None:
    checked = 0
    for page in pages.pages():
        blocks = pages.blocks(page.read_text())
        files = {block.title: block.code for block in blocks if block.is_file and block.language == "yaml"}
        for arguments in (line for block in blocks for line in pages.command_lines(block.code)):
            if "--recipe" in arguments and (text := files.get(arguments[arguments.index("--recipe") + 1])):
                published("grid" if arguments[0] == "bench" else "recipe").validate(yaml.safe_load(text))
                checked += 1
    assert checked >= 2


def test_editors_are_told_the_names(plugged: Callable[..., None], install: Install) -> None:
    source = (
        "from layerimp import Pruner, hookimpl\nclass Mine(Pruner):\n    '''Takes any.'''\n    name = 'mine'\n"
        "    def plan(self, scoring, budget): ...\n@hookimpl\ndef layerimp_pruners(): return [Mine]\n"
    )
    plugged(install("mine", source))
    known = installed_names()
    recipe, grid = (schema_of(name, installed_names)["properties"] for name in ("recipe", "grid"))
    assert "mine" in recipe["pruner"]["anyOf"][0]["examples"]
    listed, by_label = grid["pruners"]["anyOf"]
    assert "mine" in listed["items"]["examples"]
    assert by_label["properties"]["mine"]["description"] == "Takes any."
    assert recipe["scorers"]["anyOf"][1]["properties"].keys() == known["scorer"].keys() | {"all"}
    assert recipe["baselines"]["anyOf"][1]["properties"].keys() == known["scorer"].keys()
    assert recipe["model"]["examples"] == ["starter"]
    assert recipe["tasks"]["anyOf"][0]["items"]["examples"] == list(known["task"])
    assert "float64" in recipe["dtype"]["examples"]
