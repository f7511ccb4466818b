"""A shell offers the names that are installed, fast."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.fake_plugins import Install
from support.mood import Run
from typer.main import get_command

from layerimp.cli import app, completion
from layerimp.cli.schema import DESCRIBED, model_of
from layerimp.registry.catalog import registry
from layerimp.registry.names import installed_names

Complete = Callable[..., list[str]]


def asked(words: tuple[str, ...]) -> dict[str, str]:
    """What bash tells of a command line whose last word is being typed."""
    line = " ".join(["layerimp", *words])
    return {"_LAYERIMP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}


@pytest.fixture
def complete(layerimp_command: Run, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """What is offered for the last word, and nothing else is printed."""

    def offered(*words: str) -> list[str]:
        for name, value in asked(words).items():
            monkeypatch.setenv(name, value)
        code, out, err = layerimp_command()
        assert (code, err) == (0, "")
        return out.split()

    return offered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run --scorer a", ["all", "angular", "avss", "avss-delta", "avss-paper", "avss-reference"]),
        ("run --scorer mine=avss-d", ["mine=avss-delta"]),
        ("run --pruner w", ["window"]),
        ("run --heal r", ["rescale"]),
        ("run --heal mine=d", ["mine=distill"]),
        ("run --evaluator f", ["fidelity", "footprint"]),
        ("run --model s", ["starter"]),
        ("run s", ["starter"]),
        ("run --calibration p", ["prose"]),
        ("run --tasks starter_q", ["starter_qa"]),
        ("run --tasks none", ["none"]),
        ("run --tasks starter_qa,starter_se", ["starter_qa,starter_sentiment"]),
        ("run --dtype b", ["bfloat16"]),
        ("run --target k", ["kv-cache="]),
        ("run --packing w", ["windows"]),
        ("score --by s", ["sublayer"]),
        ("plan --export m", ["mergekit"]),
        ("heal --healer l", ["linear"]),
        ("heal --teacher s", ["starter"]),
        ("bench --scorer al", ["all"]),
        ("bench --pruner mine=g", ["mine=greedy"]),
        ("bench --model mine=s", ["mine=starter"]),
        ("bench --engine r", ["ray"]),
        ("report --format l", ["latex"]),
        ("scorers lr", ["lrp"]),
        ("pruners l", ["lowest"]),
        ("healers l", ["linear"]),
        ("evaluators h", ["harness"]),
        ("schema gr", ["grid", "grid-forecast"]),
        ("cache --clear m", ["metrics"]),
        ("heal --h", ["--healer", "--heal-text", "--help"]),
        ("he", ["heal", "healers"]),
    ],
)
def test_what_is_offered(complete: Complete, words: str, expected: list[str]) -> None:
    assert sorted(complete(*words.split())) == sorted(expected)


def test_all_names_of_a_kind(complete: Complete) -> None:
    # bash quotes an empty word that is being typed
    assert complete("run", "--pruner", "''") == registry().names("pruner")


def test_a_strangers_name_is_offered(complete: Complete, plugged: Callable[..., None], install: Install) -> None:
    source = (
        "import sys\nfrom layerimp import Pruner, hookimpl\nprint('loading')\nprint('still', file=sys.stderr)\n"
        "class Mine(Pruner):\n    name = 'mine'\n    def plan(self, scoring, budget): ...\n"
        "@hookimpl\ndef layerimp_pruners(): return [Mine]\n"
    )
    plugged(install("mine", source), install("broken", "1 / 0"))
    assert complete("run", "--pruner", "m") == ["mine"]


def test_what_a_name_stands_for_is_one_line(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptions = dict(completion.offers(kind="scorer")("a"))
    assert descriptions["avss"].startswith("Activation variance over sparsity")
    assert all(len(description) <= completion.WIDTH for description in descriptions.values())


def test_schemas_are_offered_by_their_names() -> None:
    versions = [model_of(name).model_fields["schema_version"].default for name in DESCRIBED]
    assert [version.removeprefix("layerimp.").partition("/")[0] for version in versions] == list(DESCRIBED)


NAMED = {
    "scorer": "scorer",
    "pruner": "pruner",
    "heal": "healer",
    "healer": "healer",
    "evaluator": "evaluator",
    "model": "model",
    "teacher": "model",
    "calibration": "text",
    "heal_text": "text",
    "tasks": "task",
}
"""By parameter, the kind of what it names."""
NOT_SHIPPED = {("heal", "model"), ("plan", "model")}


def test_wherever_a_component_is_named_names_are_offered() -> None:
    group = get_command(app)
    for name, command in group.commands.items():
        for parameter in command.params:
            if parameter.name in NAMED and (name, parameter.name) not in NOT_SHIPPED:
                with command.make_context(name, [], resilient_parsing=True) as context:
                    offered = {item.value for item in parameter.shell_complete(context, "")}
                assert installed_names()[NAMED[parameter.name]].keys() <= offered, (name, parameter.name)


def test_nothing_heavy_is_imported() -> None:
    """Once the names are known, to offer them takes neither torch nor anything else that takes a second."""
    installed_names()
    ends = "atexit.register(lambda: print(sorted({'torch', 'transformers', 'rich', 'numpy'} & sys.modules.keys())))"
    program = f"import atexit, sys; {ends}; sys.argv = ['layerimp']; from layerimp.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | asked(("run", "--scorer", "ta")),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["taylor"]
    assert done.stderr.split() == ["[]"]  # what is printed while Python ends goes there
