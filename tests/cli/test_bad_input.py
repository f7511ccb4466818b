"""Bad input is one clear line, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import layerimp_harness.tasks
import pytest
import torch
from support.broken_checkpoints import (
    blockless,
    empty,
    pickled,
    truncated,
    with_a_block_more,
    with_fields,
    without_a_block,
)
from support.mood import Run, changed, mood
from support.tiny import saved, tiny


def written(name: str, text: str) -> Callable[[Path], Path]:
    def write(tmp_path: Path) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def here(name: str) -> Callable[[Path], Path]:
    return lambda tmp_path: tmp_path / name


CODE_TASK = "task: evil\ndataset_path: json\nprocess_results: !function evil.run\n"
WRONG = [
    (["--scorer", "avs"], "unknown scorer 'avs'. Did you mean 'avss'?"),
    (["--scorer", "all", "--scorer", "avs"], "unknown scorer 'avs'. Did you mean 'avss'?"),
    (["--pruner", "lowes"], "unknown pruner 'lowes'. Did you mean 'lowest'?"),
    (["--evaluator", "harnes", "--tasks", "x"], "unknown evaluator 'harnes'. Did you mean 'harness'?"),
    (["--scorer", "avss", "--set", "avss.epsilon=small"], "option 'epsilon' of scorer 'avss'"),
    (
        ["--calibration", "A pasted text. " * 30],
        "'A pasted text. A pasted text. A pasted t'... is too long: the name of a file has at most 255 bytes",
    ),
    (["--device", "meta"], "device 'meta' is not supported; models compute on the CPU (cpu) or a GPU (cuda)"),
    (["--model", "m" * 300], "mmm'... is too long: the name of a file has at most 255 bytes"),
    (["--ratio", "1"], "ratio 1 is not between 0 and 1; a number of blocks is given as the count 1"),
    (
        ["--ratio", "half"],
        "Invalid value for '--ratio': Input should be a valid number, unable to parse string as a number, got 'half'",
    ),
    (["--target", "parameters=1e400"], "target parameters=1e400 is no size"),
    (["--target", f"bytes={'9' * 400}GB"], "is no size; give a factor between 0 and 1"),
    (["--calibration", ""], "calibration.source: String should have at least 1 character, got ''"),
    (["--heal", "=linear"], "--heal takes HEALER or LABEL=HEALER, got '=linear'"),
    (["--scorer", "a="], "--scorer takes SCORER or LABEL=SCORER, got 'a='"),
    (["--heal-text", "prose"], "heal_text is read only by a healer that trains: name one as well, such as distill"),
    (["--recipe", written("t.yaml", "blocks: 1\nprotect: one")], "protect: Input should be a list, got 'one'"),
    (["--recipe", written("y.yaml", "a: [1")], "is not YAML: while parsing a flow sequence at line 1, column 4"),
    (["--blocks", "1/2"], "--blocks takes blocks such as 5,8-10, got '1/2': '1/2' is no block"),
    (["--model", here("nowhere")], "does not exist"),
    (["--model", "no-such-model"], "no directory here has that name, and from the hub"),
    (["--model", empty], "is empty"),
    (["--model", pickled], "pickled weights only"),
    (["--model", blockless], "cannot load the model"),
    (["--calibration", here("nowhere.jsonl")], "does not exist"),
    (["--label-field", "label", "--packing", "rows"], "labels ('label') are for classifiers; LlamaForCausalLM is none"),
    (["--tasks", "/nowhere/task.yaml"], "/nowhere/task.yaml"),
    (["--tasks", written("evil.yaml", CODE_TASK)], "--allow-task-code"),
    (["--tasks", written("broken.yaml", "task: [\n")], "broken.yaml"),
    (["--recipe", written("o.yaml", "overwrite: true")], "cannot say overwrite"),
    (["--blocks", ""], "--blocks takes blocks such as 5,8-10, got ''"),
    (["--model", truncated], "cannot read"),
    (
        ["--model", with_fields(intermediate_size=60)],
        "which is [32, 64] in the files and [32, 60] by the configuration",
    ),
    (["--model", with_fields(hidden_act="swoosh")], "KeyError: 'swoosh' (its configuration says hidden_act 'swoosh')"),
    (["--model", with_fields(dtype="float17")], "'float17' (its configuration says dtype 'float17')"),
    (["--model", with_fields(hidden_size="32")], "Field 'hidden_size' expected int, got str (value: '32')"),
    (
        ["--model", with_fields(num_hidden_layers=0)],
        "(model.layers.0.input_layernorm.weight), but its configuration counts 0",
    ),
    (["--model", without_a_block], "do not fit its configuration: 9 missing keys"),
    (["--model", with_a_block_more], "has weights of a block 3"),
    (["--dtype", "float12"], "unknown dtype 'float12'"),
    (["--device", "gpu"], "device 'gpu' is not supported; models compute on the CPU (cpu) or a GPU (cuda)"),
    (["--device-map", "all"], "Invalid value for '--device-map': 'all' is not one of 'auto'"),
    (["--nonsense"], "No such option"),
]


UNREADABLE = [
    ("field.jsonl", '{"body": "a"}', ", line 1: no field 'text' (it holds: body); see --field"),
    ("list.json", '[\n{"text": "a"}\n]', ", line 1: not JSON (Expecting value, column 1); each line is an object"),
    ("empty.txt", "", " is empty"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=lambda value: value if isinstance(value, str) else None)
def test_bad_input_is_one_line(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, arguments: list[Any], said: str
) -> None:
    given = [argument(tmp_path) if callable(argument) else argument for argument in arguments]
    before = set(tmp_path.iterdir())
    tasks = () if "--tasks" in given else ("--tasks", "none")
    output = () if "--output" in given else ("--output", tmp_path / "out")
    code, out, err = layerimp_command("run", *tasks, *changed(scoring, *given), *output)
    last = err.splitlines()[-1]
    assert code == 2, err
    assert last.startswith("layerimp: ")
    assert said in last
    assert "Traceback" not in err
    assert out == ""
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["run", "prune", "shrink"])
def test_an_error_before_any_work_is_the_only_line(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, command: str
) -> None:
    """Notes, such as on what is used by default, come when the work begins, or a forecast is shown."""
    usual = (command, "--model", model_dir, "--output", tmp_path)
    (tmp_path / "notes.txt").touch()
    code, out, err = layerimp_command(*usual)
    assert (code, out) == (2, "")
    assert err == f"layerimp: the output {tmp_path} exists; name another, or replace it with --overwrite\n"
    code, out, err = layerimp_command(*usual[:-1], tmp_path / "out", "--dry-run", "--count", 1)
    assert code == 0, err
    assert "calibration text prose" in err


@pytest.mark.parametrize(("name", "text", "said"), UNREADABLE)
@pytest.mark.parametrize("command", ["run", "bench", "heal"])
def test_text_that_cannot_be_read_is_refused_before_weights_are(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, command: str, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    given = ["--teacher", model_dir, "--removed", 1] if command == "heal" else ["--count", 1, "--tasks", mood(tmp_path)]
    before = set(tmp_path.iterdir())
    usual = (command, "--model", model_dir, "--calibration", tmp_path / name, "--output", tmp_path / "out")
    assert layerimp_command(*usual, *given) == (2, "", f"layerimp: {tmp_path / name}{said}\n")
    assert set(tmp_path.iterdir()) == before


def test_an_unknown_task_is_one_line(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among many names, such as lm-eval's own, which take seconds to read."""
    monkeypatch.setattr(layerimp_harness.tasks, "whole_index", lambda: dict.fromkeys(f"task_{n}" for n in range(1000)))
    given = ["--task-path", tmp_path, "--tasks", "task_of_no_name"]
    test_bad_input_is_one_line(layerimp_command, scoring, tmp_path, given, "None of 1,0")


@pytest.mark.parametrize("option", ["--model", "--output", "--calibration"])
def test_the_home_of_nobody_and_links_in_a_circle_are_one_line(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "~nobody-of-this-name").write_text("")
    for name in ("circle", "~nobody-of-this-name"):
        usual = ["--model", model_dir, "--count", 1, "--output", "out"]
        code, _, err = layerimp_command("prune", *changed(usual, option, name))
        assert (code, err.splitlines()[-1][:10]) == (2, "layerimp: "), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "~nobody-of-this-name"]


@pytest.mark.parametrize("command", ["run", "score", "prune", "evaluate"])
def test_one_device_and_all_of_them_contradict_each_other(layerimp_command: Run, command: str) -> None:
    code, out, err = layerimp_command(command, "--device", "cpu", "--device-map", "auto")
    assert (code, out) == (2, "")
    assert err == "layerimp: device and device_map contradict each other; give one of them\n"


def test_what_takes_too_much_memory_is_one_line_with_a_remedy(
    layerimp_command: Run, scoring: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 24 GiB. More. And more."
        )

    monkeypatch.setattr("layerimp_baselines.block_influence.BlockInfluence.update", full)
    code, _, err = layerimp_command("score", *changed(scoring, "--scorer", "block-influence"))
    remedy = "--batch-size 1 and a lower --max-length take less memory"
    assert code == 1
    assert err.splitlines()[-1] == f"layerimp: CUDA out of memory. Tried to allocate 2.00 GiB; {remedy}"


def test_a_model_with_nan_is_one_line(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    saved(model, tmp_path / "nan")
    err = layerimp_command.refused("score", *changed(scoring, "--model", tmp_path / "nan"))
    assert "block 1 puts out a NaN or an infinity" in err.splitlines()[-1]
