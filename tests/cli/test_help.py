"""Help is quick, whole and in order."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support.mood import Run
from typer.main import get_command

from layerimp.cli import app


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; sys.argv = ['layerimp', '--help']\n"
        "from layerimp.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_options_stand_under_headings(layerimp_command: Run) -> None:
    """Each option of each command is shown exactly once, and the most common options before all headings."""
    for name, command in get_command(app).commands.items():
        out, _ = layerimp_command.done(name, "--help")
        described = re.findall(r"^  (?:-h, )?(--[a-z-]+)", out.partition("Options:")[2], re.MULTILINE)
        declared = [option.opts[0] for option in command.params if option.param_type_name == "option"]
        assert sorted(described) == sorted([*declared, "--help"]), f"an option of {name} has no heading"
    out = layerimp_command("run", "--help")[1]
    headings = ("--model", "--scorer", "--calibration", "--tasks", "--output", "What to remove:")
    places = [out.index(text) for text in headings]
    assert places == sorted(places)
    assert "Healing:" not in layerimp_command("plan", "--help")[1]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_summary_is_cut(layerimp_command: Run, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = layerimp_command("--help")[1].partition("Commands:")[2]
    assert max(map(len, out.splitlines())) <= width
    shown = " ".join(out.split())
    for name, command in get_command(app).commands.items():
        assert f"{name} {command.short_help}" in shown
