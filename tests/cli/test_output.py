"""Outputs: what is written, what may be overwritten, and that nothing is left half-written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from layerimp_harness import Harness
from support.mood import Run, changed
from support.tiny import tiny
from transformers import PreTrainedModel

from layerimp.testing import tiny_tokenizer


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
    code, _, err = layerimp_command("score", "--recipe", tmp_path / "out" / "recipe.json")
    assert code == 2  # the output of the recipe exists, and the recipe cannot say overwrite
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    monkeypatch.setenv("HOME", str(tmp_path / "mine"))
    for precious in (tmp_path / "mine", model_dir, model_dir.parent):
        (precious / "recipe.json").write_text('{"schema_version": "layerimp.recipe/1"}')
        kept = sorted(path.name for path in precious.iterdir())
        code, _, err = layerimp_command(*arguments, precious, "--overwrite")
        assert code == 2, precious
        assert "name another" in err
        assert sorted(path.name for path in precious.iterdir()) == kept
        (precious / "recipe.json").unlink()
    monkeypatch.setenv("HOME", "/nonexistent")
    code, _, err = layerimp_command(*arguments, tmp_path / "mine", "--overwrite")
    assert (code, "which layerimp did not write" in err) == (2, True)


def test_an_output_that_cannot_be_written(layerimp_command: Run, scoring: list[object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = layerimp_command("score", *scoring, "--output", tmp_path / "file" / "out")
    assert code == 2
    assert "cannot write" in err.splitlines()[-1]


def test_no_space_is_one_line(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    code, _, err = layerimp_command("run", "--tasks", "none", *scoring, "--output", tmp_path / "out")
    assert code == 2
    assert "No space left on device" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_done_is_known_before_the_long_work(
    layerimp_command: Run, scoring: list[object], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Harness, "evaluate", lambda *_: pytest.fail("too late"))
    arguments = [*scoring, "--tasks", task, "--output", tmp_path / "out"]
    tiny("gpt2", scale_attn_by_inverse_layer_idx=True).save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer().save_pretrained(tmp_path / "gpt2")
    code, _, err = layerimp_command("run", *changed(arguments, "--model", tmp_path / "gpt2"), "--blocks", 1)
    assert (code, "attn.scaling would change" in err) == (2, True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    code, _, err = layerimp_command("run", *arguments)
    assert (code, "has 1,000 left" in err) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stage", "number"), [("score", signal.SIGINT), ("save", signal.SIGHUP), ("save", signal.SIGTERM)]
)
def test_an_interrupt_leaves_nothing(scoring: list[object], tmp_path: Path, stage: str, number: signal.Signals) -> None:
    """A real signal in the middle of a real run."""
    arguments = ["layerimp", "run", "--tasks", "none", *map(str, scoring), "--output", str(tmp_path / "out")]
    # Many short sleeps: a signal that arrives just before a sleep, or at another thread, does not wake the sleeper.
    slow = "import time, layerimp.pipeline.scores as s, layerimp.pipeline.output as p; "
    # What is printed is for stderr; this is said on the real stdout.
    slow += "import os; out = os.dup(1); "
    slow += "work = lambda: (os.write(out, b'now\\n'), [time.sleep(0.01) for _ in range(6000)]); "
    slow += {
        "score": "s.fill = lambda *a, **k: work()",
        "save": "p.write = lambda m, t, d, **k: ((d / 'x').write_text('x'), work())",
    }[stage]
    # Tests that are started in the background of a shell ignore Ctrl-C, and those under nohup ignore SIGHUP.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    heard += "signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    program = f"import sys; {heard}; {slow}; from layerimp.cli import main; sys.argv = {arguments!r}; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "layerimp: interrupted; nothing is left half-written"
    assert list(tmp_path.iterdir()) == []
