"""Outputs: what is written, what may be overwritten, and that nothing is left half-written."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace

import pytest
from layerimp_harness import Harness
from support.mood import Run, changed
from support.tiny import saved, tiny
from transformers import PreTrainedModel

from layerimp.pipeline import checkpoints


def test_what_may_be_overwritten(
    layerimp_command: Run, scoring: list[object], model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["score", *scoring, "--output"]
    assert layerimp_command(*arguments, tmp_path / "out")[0] == 0
    code, _, err = layerimp_command(*arguments, tmp_path / "out")
    assert (code, "--overwrite" in err) == (2, True)
    (tmp_path / "out" / "notes").write_text("mine")
    code, _, err = layerimp_command(*arguments, tmp_path / "out", "--overwrite")
    assert (code, "it holds 'notes', which layerimp did not write" in err) == (2, True)
    (tmp_path / "out" / "notes").unlink()
    assert layerimp_command(*arguments, tmp_path / "out", "--overwrite", "--seed", 1)[0] == 0
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["seed"] == 1
    # The output of the recipe exists, and the recipe cannot say overwrite.
    layerimp_command.refused("score", "--recipe", tmp_path / "out" / "recipe.json")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    for precious in (tmp_path / "mine", model_dir, model_dir.parent):
        (precious / "recipe.json").write_text('{"schema_version": "layerimp.recipe/1"}')
        kept = sorted(path.name for path in precious.iterdir())
        err = layerimp_command.refused(*arguments, precious, "--overwrite")
        assert "name another" in err
        assert sorted(path.name for path in precious.iterdir()) == kept
        (precious / "recipe.json").unlink()
    monkeypatch.setenv("HOME", "/nonexistent")
    code, _, err = layerimp_command(*arguments, tmp_path / "mine", "--overwrite")
    assert (code, "which layerimp did not write" in err) == (2, True)


def test_files_beside_a_checkpoint_are_not_replaced(layerimp_command: Run, model_dir: Path, tmp_path: Path) -> None:
    command = ["prune", model_dir, "--blocks", 1, "--output", tmp_path / "out"]
    layerimp_command.done(*command)
    layerimp_command.done(*command, "--overwrite")
    (tmp_path / "out" / "checkpoints" / "blocks" / "notes").write_text("mine")
    err = layerimp_command.refused(*command, "--overwrite")
    assert "in checkpoints/blocks, it holds 'notes', which layerimp did not write" in err


def test_an_output_that_cannot_be_written(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    err = layerimp_command.refused("score", *scoring, "--output", tmp_path / "file" / "out")
    assert "cannot write" in err.splitlines()[-1]


def test_no_space_is_one_line(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    err = layerimp_command.refused("run", "--tasks", "none", *scoring, "--output", tmp_path / "out")
    assert "No space left on device" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_done_is_known_before_the_long_work(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Harness, "evaluate", lambda *_: pytest.fail("too late"))
    arguments = [*scoring, "--tasks", task, "--output", tmp_path / "out"]
    saved(tiny("gpt2", scale_attn_by_inverse_layer_idx=True), tmp_path / "gpt2")
    code, _, err = layerimp_command("run", *changed(arguments, "--model", tmp_path / "gpt2"), "--blocks", 1)
    assert (code, "attn.scaling would change" in err) == (2, True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    code, _, err = layerimp_command("run", *arguments, "--scorer", "fast")
    assert (code, "has 1,000 left" in err) == (2, True)
    assert not (tmp_path / "out").exists()


def _work() -> None:
    """A minute's work, in short sleeps: a signal just before one, or at another thread, does not end it."""
    for _ in range(6000):
        time.sleep(0.01)


@pytest.fixture
def _handlers() -> Iterator[None]:
    """Brings the handlers of signals back: a command sets its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_an_interrupt_leaves_nothing(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real signal in the middle of a run; the slow tests send it from another process."""
    place = tmp_path / "place"
    place.mkdir()

    def write(_model: object, _tokenizer: object, directory: Path, **_options: object) -> None:
        (directory / "x").write_text("x")
        os.kill(os.getpid(), signal.SIGTERM)
        _work()

    monkeypatch.setattr(checkpoints, "write", write)
    code, _, err = layerimp_command("run", "--tasks", "none", *scoring, "--output", place / "out")
    assert (code, err.splitlines()[-1]) == (130, "layerimp: interrupted; nothing is left half-written")
    assert list(place.iterdir()) == []


def _slow_run(arguments: list[str], stage: str, at_work: Connection, said: Path) -> None:
    """A real run, but for its scoring or its saving, which takes a minute once it has said that it is at work."""
    from layerimp.cli import main
    from layerimp.pipeline import checkpoints, scores

    def work() -> None:
        at_work.send("now")
        _work()

    def save(_model: object, _tokenizer: object, directory: Path, **_options: object) -> None:
        (directory / "x").write_text("x")
        work()

    if stage == "score":
        scores.fill = lambda *_, **__: work()
    else:
        checkpoints.write = save
    # Tests that are started in the background of a shell ignore Ctrl-C, and those under nohup ignore SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = arguments
    main()


@pytest.fixture(scope="module")
def ready() -> ForkServerContext:
    """Makes processes that have everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["layerimp.cli", "layerimp.pipeline.commands", "transformers.models.llama"])
    return context


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "number"), [("save", signal.SIGTERM), ("score", signal.SIGINT), ("save", signal.SIGHUP)]
)
def test_an_interrupt_of_a_process_leaves_nothing(
    scoring: list[object], tmp_path: Path, stage: str, number: signal.Signals, ready: ForkServerContext
) -> None:
    """A real signal in the middle of a real run."""
    said, place = tmp_path / "said", tmp_path / "place"
    place.mkdir()
    arguments = ["layerimp", "run", "--tasks", "none", *map(str, scoring), "--output", str(place / "out")]
    here, there = ready.Pipe(duplex=False)
    process = ready.Process(target=_slow_run, args=(arguments, stage, there, said))
    process.start()
    there.close()
    assert here.recv() == "now"
    assert process.pid
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == 130
    assert said.read_text().splitlines()[-1] == "layerimp: interrupted; nothing is left half-written"
    assert list(place.iterdir()) == []
