"""lm-eval's model `layerimp`: a plan, applied in memory, is measured like the checkpoint that it makes."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from layerimp_harness import __main__ as command
from layerimp_harness import lm_eval_names
from layerimp_harness.isolation import contained
from layerimp_harness.pruned import PrunedModel, _note_another_model
from lm_eval.api.registry import get_model
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from support.mood import mood
from support.tiny import tiny

import layerimp
from layerimp import PrunePlan
from layerimp.errors import InputError, LayerimpError, OptionError, UnknownNameError
from layerimp.testing import tiny_tokenizer

FOLDER = Path(__file__).parent
HOW = {"device": "cpu", "batch_size": 3}


@pytest.fixture(autouse=True)
def inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """lm-eval looks for the documents of a task in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("llama", tmp_path_factory.mktemp("model") / "tiny")


def made(architecture: str, directory: Path) -> Path:
    tiny(architecture).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def planned(path: Path, **plans: Sequence[int | str]) -> Path:
    """A file of plans for a model of four blocks."""
    usual = {"schema_version": "layerimp.plan/2", "num_blocks": 4}
    filled = {label: {**usual, "blocks": list(steps)} for label, steps in plans.items()}
    path.write_text(json.dumps({"schema_version": "layerimp.plans/2", "plans": filled}))
    return path


def measured(directory: Path, model: str, arguments: str) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
    """What lm-eval makes of a model: the metrics, the answers to all requests, and what it writes of the model."""
    mood(directory)
    with contained(0):
        evaluation = simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=["mood"],
            task_manager=TaskManager(include_defaults=False, include_path=str(directory)),
            bootstrap_iters=0,
            log_samples=True,
            **HOW,
        )
    return (
        evaluation["results"]["mood"],
        [sample["resps"] for sample in evaluation["samples"]["mood"]],
        evaluation["config"],
    )


@pytest.mark.parametrize(
    ("architecture", "blocks"),
    [
        ("llama", [3, 0]),
        pytest.param("gpt2", [1], marks=pytest.mark.slow),
        pytest.param("gemma3_text", [2], marks=pytest.mark.slow),
    ],
)
def test_a_plan_is_measured_like_its_checkpoint(architecture: str, blocks: list[int], tmp_path: Path) -> None:
    """The same modules compute with the same weights, so that the numbers are the same to the last bit."""
    whole = made(architecture, tmp_path / "whole")
    plan = planned(tmp_path / "plan.json", mine=blocks)
    model, tokenizer = layerimp.load(whole)
    layerimp.save(layerimp.prune(model, layerimp.read_plans(plan)["mine"]), tokenizer, tmp_path / "pruned")
    expected = measured(tmp_path, "hf", f"pretrained={tmp_path / 'pruned'}")
    outcome = measured(tmp_path, "layerimp", f"pretrained={whole},plan={plan}")
    assert outcome[:2] == expected[:2]
    assert outcome[2]["plan"]["blocks"] == blocks
    assert outcome[2]["model_num_parameters"] == expected[2]["model_num_parameters"]


def test_without_a_plan_the_model_is_intact(model_dir: Path, tmp_path: Path) -> None:
    outcome = measured(tmp_path, "layerimp", f"pretrained={model_dir}")
    assert outcome[:2] == measured(tmp_path, "hf", f"pretrained={model_dir}")[:2]
    assert outcome[2]["plan"] is None


def test_the_arguments_choose_a_part_of_a_file(model_dir: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path / "plan.json", avss=[2, 0], **{"7": [1, 3]})
    for arguments, blocks in (
        ("label=avss", [2, 0]),
        ("label=7,count=1", [1]),
    ):
        with contained(0):
            text = f"pretrained={model_dir},plan={plan},{arguments}"
            lm = PrunedModel.create_from_arg_string(text, HOW)
        assert lm.plan.blocks == blocks
        assert len(lm.model.model.layers) == lm.config.num_hidden_layers == 4 - len(blocks)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"plan": "none.json"}, InputError, r"cannot read the plan .*none\.json: No such file"),
        ({"plan": "two.json"}, OptionError, r"two\.json holds several plans; choose one with label=: a, b$"),
        ({"plan": "empty.json"}, InputError, r"empty\.json is no plan: it holds no plans by label$"),
        ({"plan": "two.json", "label": "c"}, UnknownNameError, r"unknown label 'c' of the plan .* Known: a, b"),
        ({"plan": "two.json", "label": "a", "count": 3}, OptionError, "count 3 is not between 1 and 1"),
        ({"plan": "six.json"}, OptionError, "^the plan is for 6 blocks; the model has 4$"),
        ({"plan": "task.yaml"}, InputError, r"task\.yaml is no plan: "),
        ({"label": "a"}, OptionError, "label and count choose in a file of plans; name the file with plan=FILE"),
        ({"pretrained": tiny()}, OptionError, "pretrained names a model; layerimp.prune prunes one"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_in_a_line(
    arguments: dict[str, Any], error: type[LayerimpError], said: str, model_dir: Path, tmp_path: Path
) -> None:
    planned(tmp_path / "two.json", a=[1], b=[2])
    planned(tmp_path / "empty.json")
    six = {"schema_version": "layerimp.plan/2", "num_blocks": 6, "blocks": [5]}
    (tmp_path / "six.json").write_text(json.dumps(six))
    (tmp_path / "task.yaml").write_text("task: mood\n")
    if "plan" in arguments:
        arguments = {**arguments, "plan": str(tmp_path / arguments["plan"])}
    with contained(0), pytest.raises(error, match=said) as raised:
        PrunedModel.create_from_arg_obj({"pretrained": str(model_dir), **arguments}, HOW)
    assert "\n" not in str(raised.value)


def test_a_plan_of_another_model_is_noted(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(model_dir.parent)
    for model in ("org/other", str(model_dir), "tiny", None):
        _note_another_model(PrunePlan(num_blocks=4, blocks=[1], model=model), "tiny")
    assert caplog.messages == ["the plan was made for org/other, and is applied to tiny"]


def test_a_model_that_a_plugin_ships_is_found_by_its_name() -> None:
    with contained(0):
        lm = PrunedModel("starter", **HOW)
    assert lm.config.num_hidden_layers == len(layerimp.find_blocks(lm.model))


# How lm-eval finds it


@pytest.mark.parametrize("pyproject", [FOLDER / "pyproject.toml", FOLDER.parents[1] / "pyproject.toml"], ids=str)
def test_the_entry_point_is_what_lm_eval_takes(pyproject: Path) -> None:
    """lm-eval loads the value and creates the class by its class methods; its decorator accepts the same class."""
    declared = tomllib.loads(pyproject.read_text())["project"]["entry-points"]["lm_eval.models"]
    assert list(declared) == ["layerimp"]
    model_class = EntryPoint("layerimp", declared["layerimp"], "lm_eval.models").load()
    assert model_class is PrunedModel is get_model("layerimp")
    assert declared["layerimp"] == f"{model_class.__module__}:{model_class.__name__}"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["lm_eval", *map(str, arguments)])
    command.main()


def test_the_command_says_in_a_line_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_dir: Path
) -> None:
    def evaluating() -> None:
        _, _, arguments = sys.argv
        get_model("layerimp").create_from_arg_string(arguments, HOW)

    monkeypatch.setitem(vars(lm_eval_names), "cli_evaluate", evaluating)
    with pytest.raises(SystemExit) as done:
        run(monkeypatch, "--model_args", f"pretrained={model_dir},plan=none.json")
    assert done.value.code == 2
    assert capsys.readouterr().err == "error: cannot read the plan none.json: No such file or directory\n"


@pytest.mark.slow
def test_the_command_of_lm_eval_measures_a_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_dir: Path, tmp_path: Path
) -> None:
    """All of lm-eval's own command, which reads the index of its tasks first."""
    mood(tmp_path)
    plan = planned(tmp_path / "plan.json", mine=[1, 2])
    arguments = ["--model_args", f"pretrained={model_dir},plan={plan}", "--device", "cpu"]
    with contained(0):
        run(monkeypatch, "--model", "layerimp", *arguments, "--tasks", "mood", "--include_path", tmp_path,
            "--output_path", tmp_path / "out")  # fmt: skip
    (written,) = (tmp_path / "out").rglob("results_*.json")
    evaluation = json.loads(written.read_text())
    assert evaluation["config"]["plan"]["blocks"] == [1, 2]
    expected, _, _ = measured(tmp_path, "layerimp", f"pretrained={model_dir},plan={plan}")
    assert evaluation["results"]["mood"]["acc,none"] == expected["acc,none"]
