"""stdout holds results and nothing else, and with `--json` one document, whatever plugins and libraries print."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from layerimp_step import Step
from support.by_label import by_label
from support.fake_plugins import Install, Plug
from support.mood import Run

from layerimp.errors import PluginError
from layerimp.registry import catalog


class Talking(Step):
    """Prints while it runs."""

    name = "talking"

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        print("when made")
        super().__init__(num_blocks, config)

    def update(self, trace: Any) -> None:
        sys.stdout.write("at work\n")
        super().update(trace)


@pytest.fixture
def scoring(model_dir: Path, calibration_file: Path) -> list[object]:
    amount = ["--samples", 4, "--batch-size", 2, "--max-length", 16]
    return ["score", "--model", model_dir, "--calibration", calibration_file, *amount]


@pytest.mark.parametrize("shown", ["--json", None])
def test_what_a_component_prints_is_for_stderr(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object], shown: str | None
) -> None:
    plugged(install("talking", layerimp_scorers=lambda: [print("in a hook"), [Talking]][1]))
    out, err = layerimp_command.done(*scoring, "--scorer", "talking", *([shown] if shown else []))
    for line in ("in a hook", "when made", "at work"):
        assert line not in out
        assert line in err.splitlines()
    assert "talking" in (by_label(out)["scorers"] if shown else out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["score", "--scorer", "nosuch"], "unknown scorer 'nosuch'"),
        (["score", "--nosuch"], "No such option: --nosuch; see layerimp score --help"),
        (["plugins", "harness"], "unexpected extra argument(s) (harness); see layerimp plugins --help"),
        (["score", "--samples", "many"], "--samples"),
        (["heal", "--model", "x"], "--output"),
        (["nosuch"], "nosuch"),
    ],
)
def test_a_refusal_prints_nothing_on_stdout(layerimp_command: Run, arguments: list[object], said: str) -> None:
    code, out, err = layerimp_command(*arguments, "--json")
    assert (code, out) == (2, "")
    assert said in err
    assert layerimp_command(*arguments) == (code, "", err)


@pytest.mark.parametrize(("cause", "ends"), [(KeyboardInterrupt, 130), (PluginError, 2)])
def test_what_ends_a_command_is_its_exit_code(
    layerimp_command: Run, monkeypatch: pytest.MonkeyPatch, cause: type[BaseException], ends: int
) -> None:
    def failing() -> None:
        raise cause("oops")

    monkeypatch.setattr(catalog, "registry", failing)
    code, out, err = layerimp_command("plugins", "--json")
    assert (code, out) == (ends, "")
    assert err.startswith("layerimp: ")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from layerimp.cli import main

    monkeypatch.setattr(catalog, "registry", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["layerimp", "plugins", "--json"])
    with pytest.raises(ZeroDivisionError):
        main()


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="there is no full device here")
def test_a_full_stream_is_an_error() -> None:
    with FULL.open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "layerimp", "--version"]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "layerimp: cannot write to stdout: No space left on device"
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (2, said)


@pytest.mark.slow
@pytest.mark.skipif(not FULL.exists(), reason="there is no full device here")
def test_a_full_stream_loses_no_output(model_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "layerimp", "prune", "--model", str(model_dir), "--blocks", "1", "--output"]
    with FULL.open("w", encoding="utf-8") as full:
        ran = subprocess.run([*command, tmp_path / "out"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        said = f"No space left on device; what was computed is written in {tmp_path / 'out'}"
        assert (ran.returncode, ran.stderr.splitlines()[-1]) == (2, f"layerimp: cannot write to stdout: {said}")
        assert (tmp_path / "out" / "plan.json").exists()
        assert subprocess.run([sys.executable, "-m", "layerimp", "nosuch"], stderr=full, check=False).returncode == 2
