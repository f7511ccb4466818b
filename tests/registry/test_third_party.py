"""A third party's plugin: built as a wheel, installed beside layerimp's wheel in a clean environment, and used."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_deepest import Deepest
from layerimp_louder import Louder
from layerimp_parameters import Parameters
from layerimp_step import Step
from parrot import ParrotConfig, ParrotForCausalLM
from support.by_label import by_label
from support.environment import Environment, copied

import layerimp
from layerimp import Evaluator, Healer, Pruner, Scorer
from layerimp.sweep import Ablation, Backward, Trace
from layerimp.testing import Check, parametrize, tiny_tokenizer

ROOT = Path(layerimp.__file__).parents[1]
PLUGINS = ROOT / "docs" / "plugins"
TUTORIAL = ROOT / "docs" / "extend" / "index.md"
GUIDE = ROOT / "docs" / "extend" / "write-a-plugin.md"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    place = tmp_path_factory.mktemp("third-party")
    source = place / "layerimp"
    source.mkdir()
    for name in ("layerimp", "plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    made = Environment.made(place / "venv")
    made.install(source, *(copied(folder, place) for folder in sorted(PLUGINS.iterdir())))
    return made


@pytest.mark.slow
def test_they_are_installed(environment: Environment) -> None:
    installed = environment.plugins()
    ours = {folder.name for folder in PLUGINS.iterdir()}
    assert {name: installed[name]["status"] for name in ours} == dict.fromkeys(ours, "ok")
    assert installed["step"]["distribution"] == "layerimp-step"


@pytest.mark.slow
def test_the_smallest_plugins_prune_a_made_up_architecture(
    environment: Environment, calibration_file: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    ParrotForCausalLM(ParrotConfig()).save_pretrained(tmp_path / "parrot")
    tiny_tokenizer().save_pretrained(tmp_path / "parrot")
    report = by_label(
        environment(
            *("layerimp", "run", "--model", tmp_path / "parrot", "--calibration", calibration_file, "--samples", 4),
            *("--max-length", 16, "--scorer", "step", "--pruner", "deepest", "--evaluator", "parameters"),
            *("--ratio", 0.5, "--output", tmp_path / "out", "--json"),
        )
    )
    assert min(report["scorers"]["step"]["scores"]) > 0
    assert report["scorers"]["step"]["removed"] == [3, 2]
    counts = {label: costs["parameters"] for label, costs in report["footprint"].items()}
    assert counts == {"original": report["parameters"]["original"], "step": report["parameters"]["pruned"]["step"]}
    assert report["num_blocks"] == 4
    block = (16 * 64 + 64) + (64 * 16 + 16) + 2 * 16
    assert counts["original"] - counts["step"] == 2 * block
    config = json.loads((tmp_path / "out" / "checkpoints" / "step" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2


TEMPLATES = {"avss": "AVSS", "lowest": "Lowest", "footprint": "Footprint"}


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_renamed_copy_passes_its_own_tests(environment: Environment, template: str, tmp_path: Path) -> None:
    (recipe,) = (code for code in blocks_of(GUIDE, "bash") if "cp -r" in code)
    assert len(recipe.splitlines()) == 5
    shutil.copytree(ROOT / "plugins" / template, tmp_path / "plugins" / template)
    lines = recipe.replace("avss", template).replace("AVSS", TEMPLATES[template]).splitlines()
    assert lines[3:] == ["pip install -e .", "pytest"]
    subprocess.run(["bash", "-e", "-c", "\n".join(lines[:3])], check=True, cwd=tmp_path)
    environment.install(copied(tmp_path / "mine", tmp_path / "build"))
    environment("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path / "mine")
    mine = environment.plugins()["mine"]
    assert (mine["status"], mine["distribution"]) == ("ok", "layerimp-mine")


@pytest.mark.slow
def test_the_tutorial_is_followed(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(*blocks_of(TUTORIAL, "toml"))
    module, check, with_option = blocks_of(TUTORIAL, "python")
    (tmp_path / "layerimp_step.py").write_text(module)
    (tmp_path / "test_step.py").write_text(check)
    commands = "".join(blocks_of(TUTORIAL, "bash")).splitlines()
    assert (commands[0], commands.count(commands[0])) == ("pip install -e .", 2)
    again = commands.index(commands[0], 1)
    for command in commands[1:again]:  # it is installed already: the files are those of the smallest plugin
        environment(*command.replace("pytest", "python -m pytest").split(), cwd=tmp_path)
    (tmp_path / "layerimp_step.py").write_text(with_option)
    environment.install(copied(tmp_path, tmp_path.parent / "build"))
    for command in commands[again + 1 :]:
        environment(*command.split(), cwd=tmp_path)


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_smallest_plugin_is_shown_whole() -> None:
    module = (PLUGINS / "step" / "layerimp_step.py").read_text()
    for page in (ROOT / "README.md", TUTORIAL):
        assert module in blocks_of(page, "python"), page
        assert (PLUGINS / "step" / "pyproject.toml").read_text() in blocks_of(page, "toml"), page


@pytest.mark.parametrize(
    ("contract", "name"),
    [(Scorer, "step"), (Pruner, "deepest"), (Healer, "louder"), (Evaluator, "parameters")],
    ids=str,
)
def test_the_contract_opens_with_a_whole_plugin(contract: type[Any], name: str) -> None:
    module = (PLUGINS / name / f"layerimp_{name}.py").read_text()
    assert textwrap.indent(module, "    ") in inspect.cleandoc(contract.__doc__ or "")


@pytest.mark.parametrize("sweep", [Backward, Ablation], ids=lambda kind: kind.__name__)
def test_the_example_in_a_docstring_is_one_that_the_guide_runs(sweep: type[Any]) -> None:
    shown = unindented("\n".join(blocks_of(GUIDE, "python")))
    assert all(part in shown for part in examples_of(sweep))


def test_the_trace_in_the_docstring_has_the_shapes_that_it_tells() -> None:
    (example,) = examples_of(Trace)
    names: dict[str, Any] = {"torch": torch, "Trace": Trace}
    exec(example, names)
    shapes = [list(rows.shape) for rows in (names["trace"].acts["block_out"], names["trace"].rows("block_out"))]
    assert shapes == [[2, 3, 2], [5, 2]]
    assert all(str(shape) in (Trace.__doc__ or "") for shape in shapes)


def examples_of(kind: type[Any]) -> list[str]:
    description = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")[0]
    examples = [unindented(part) for part in description.split("\n\n") if part.startswith("    ")]
    assert examples
    return examples


def unindented(code: str) -> str:
    return re.sub(r"^ +", "", code, flags=re.MULTILINE)


@parametrize(Step, Deepest, Louder, Parameters)
def test_the_documented_plugins_keep_their_contracts(check: Check) -> None:
    check()
