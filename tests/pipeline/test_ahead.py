"""Amounts that contradict the configuration are refused before weights are read, and nothing is created."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layerimp_step import Step
from support.by_label import by_label
from support.fake_plugins import Install, Plug
from support.mood import Run

import layerimp
from layerimp.bench import engine
from layerimp.checkpoint.record import FILE
from layerimp.errors import OptionError
from layerimp.models.configuration import blocks_stated, count_blocks
from layerimp.pipeline import resolve
from layerimp.pipeline.resolve import check_ahead
from layerimp.recipe import Permissions
from layerimp.testing import tiny_model

PLAN: dict[str, Any] = {"schema_version": "layerimp.plan/2", "num_blocks": 5, "blocks": [1]}


@pytest.fixture
def weightless(model_dir: Path, tmp_path: Path) -> Path:
    """A model of four blocks whose weights cannot be read."""
    place = tmp_path / "weightless"
    shutil.copytree(model_dir, place)
    for file in place.glob("*.safetensors"):
        file.write_bytes(b"none of these are weights")
    return place


CONTRADICTIONS = [
    (["--blocks", "7"], "block 7 does not exist: the model has blocks 0 to 3"),
    (["--ratio", "0.1"], "ratio 0.1 of 4 blocks rounds to none"),
    (["--count", "3", "--protect", "0,1"], "only 2 of 4 are not protected"),
]


@pytest.mark.parametrize("command", ["run", "prune"])
@pytest.mark.parametrize(("options", "said"), CONTRADICTIONS)
def test_contradictions_are_refused_before_weights_are_read(
    layerimp_command: Run, weightless: Path, tmp_path: Path, command: str, options: list[str], said: str
) -> None:
    out = tmp_path / "new" / "folders" / "out"
    err = layerimp_command.refused(command, "--model", weightless, *options, "--output", out)
    assert said in err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_a_plan_for_another_model_is_refused_before_weights_are_read(
    layerimp_command: Run, weightless: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    arguments = ["--model", weightless, "--plan", tmp_path / "plan.json", "--output", tmp_path / "new" / "out"]
    err = layerimp_command.refused("prune", *arguments)
    assert "plan 'plan' is for 5 blocks; the model has 4" in err
    assert not (tmp_path / "new").exists()


def test_what_heal_is_told_is_refused_before_weights_are_read(
    layerimp_command: Run, weightless: Path, tmp_path: Path
) -> None:
    arguments = ["--model", weightless, "--teacher", weightless, "--removed", "9", "--output", tmp_path / "new" / "out"]
    err = layerimp_command.refused("heal", *arguments)
    assert "removed block 9 does not exist" in err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_a_model_of_a_grid_from_which_nothing_can_go_is_refused(
    layerimp_command: Run, weightless: Path, tmp_path: Path
) -> None:
    amounts = ["--ratio", "0.1", "--count", "4"]
    err = layerimp_command.refused("bench", "--model", weightless, *amounts, "--output", tmp_path / "new" / "out")
    assert "nothing can be removed from 'weightless': removing 4 of 4 blocks" in err.splitlines()[-1]
    assert "; ratio 0.1 of 4 blocks rounds to none" in err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_ray_that_is_not_installed_is_said_before_anything(
    layerimp_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    code, _, err = layerimp_command("bench", "--engine", "ray", "--output", tmp_path / "new" / "out")
    assert (code, err.splitlines()[-1]) == (2, "layerimp: --engine ray needs Ray: pip install 'layerimp[ray]'")
    assert not (tmp_path / "new").exists()


def test_where_the_configuration_states_another_number_blocks_are_counted(
    plugged: Plug, install: Install, weightless: Path
) -> None:
    """A plugin may find a stack whose length is not `num_hidden_layers`."""

    def half(model: Any) -> Any:
        return layerimp.blocks.BlockStack(model, "model.layers", model.config, model.model)  # type: ignore[attr-defined]

    config = json.loads((weightless / "config.json").read_text())
    (weightless / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))
    plugged(install("half", layerimp_blocks=half))
    assert (blocks_stated(weightless), count_blocks(weightless)) == (6, 6)
    asked: list[int] = []

    def check(num_blocks: int) -> None:
        asked.append(num_blocks)
        if num_blocks != 8:
            raise OptionError(f"{num_blocks} are not 8")

    with pytest.raises(OptionError, match="6 are not 8"):
        check_ahead(str(weightless), Permissions(), check)
    assert asked == [6, 6]


def test_where_blocks_cannot_be_counted_the_loaded_model_decides(
    weightless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "count_blocks", lambda *_args, **_options: None)

    def check(_num_blocks: int) -> None:
        raise OptionError("never")

    check_ahead(str(weightless), Permissions(), check)


@pytest.mark.parametrize("command", ["run", "score", "prune", "evaluate", "heal", "bench"])
def test_no_output_lies_in_a_model(layerimp_command: Run, model_dir: Path, tmp_path: Path, command: str) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_dir, model)
    more: dict[str, list[object]] = {
        "prune": ["--blocks", 1],
        "heal": ["--teacher", model_dir, "--removed", 1],
    }
    before = sorted(path.name for path in model.iterdir())
    err = layerimp_command.refused(
        command, "--model", model, *more.get(command, []), "--output", model / "deep" / "out"
    )
    assert f"lies in the directory of the model {model}; name another" in err.splitlines()[-1]
    assert sorted(path.name for path in model.iterdir()) == before


def test_no_output_lies_in_the_teacher(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "teacher")
    asked = ["--model", model_dir, "--teacher", tmp_path / "teacher", "--removed", 1]
    code, _, err = layerimp_command("heal", *asked, "--output", tmp_path / "teacher" / "out")
    assert (code, "lies in the directory of the model" in err.splitlines()[-1]) == (2, True)
    assert not (tmp_path / "teacher" / FILE).exists()


def test_folders_on_the_way_to_an_output_go_with_it(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    out = tmp_path / "there" / "new" / "folders" / "out"
    layerimp_command.refused("score", "--model", model_dir, "--calibration", tmp_path / "nothing", "--output", out)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("call", [layerimp.prune, lambda model, blocks: layerimp.heal(model, blocks, [])])
def test_a_number_in_place_of_a_list_is_refused(call: Callable[..., object]) -> None:
    with pytest.raises(OptionError, match=r"^blocks are given as a list, such as \[5, 8\], got 5$"):
        call(tiny_model(), 5)


def test_one_that_breaks_by_sublayer_leaves_the_others(
    plugged: Plug, install: Install, layerimp_command: Run, model_dir: Path, calibration_file: Path
) -> None:
    class Breaking(Step):
        """Breaks."""

        name = "bad"

        def update(self, trace: Any) -> None:
            raise KeyError("oops")

    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [Breaking]))
    text = ["--calibration", calibration_file, "--samples", 4, "--max-length", 16]
    asked = ["score", "--by", "sublayer", "--model", model_dir, *text, "--scorer", "block-influence", "--json"]
    expected = by_label(layerimp_command(*asked)[1])["scorers"]
    code, out, err = layerimp_command(*asked, "--scorer", "bad")
    assert code == 1, err
    assert by_label(out)["scorers"] == expected
    assert by_label(out)["failed"]["bad"].startswith("scorer 'bad.attn' (layerimp-b 1.2) failed at block 0, batch 0")
