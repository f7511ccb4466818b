"""An exception with which a plugin tries to end the process counts as its fault, and ends nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from layerimp_parameters import Parameters
from layerimp_step import Step
from support.broken_healers import Idle
from support.by_label import by_label
from support.fake_plugins import Install, Plug
from support.mood import Run

import layerimp
from layerimp.errors import PluginError, PluginWarning
from layerimp.registry.assets import assets
from layerimp.registry.attribution import attributing
from layerimp.registry.catalog import registry
from layerimp.sweep import Forward
from layerimp.testing import batch, tiny_model

EXITS = [SystemExit, GeneratorExit, BaseException, type("Odd", (BaseException,), {})]
each_exit = pytest.mark.parametrize("kind", EXITS)


def in_turn(name: str, places: Sequence[str]) -> pytest.MarkDecorator:
    """Each kind of exit at one of the places, in turn; the slow tests try each kind at all of them."""
    pairs = [
        pytest.param(kind, place, marks=[pytest.mark.slow] * (number % len(places) != places.index(place)))
        for number, kind in enumerate(EXITS)
        for place in places
    ]
    return pytest.mark.parametrize(("kind", name), pairs)


@in_turn("when", ["__init__", "update", "end_sweep", "compute"])
def test_an_exit_is_the_scorers_fault(
    plugged: Plug,
    install: Install,
    layerimp_command: Run,
    model_dir: Path,
    calibration_file: Path,
    kind: type[BaseException],
    when: str,
) -> None:
    def leave(*_args: Any, **_kwargs: Any) -> None:
        raise kind(0)

    bad = type("Bad", (Step,), {"name": "bad", "__doc__": "Ends.", when: leave})
    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [bad]))
    text = ["--calibration", calibration_file, "--samples", 4, "--max-length", 16, "--batch-size", 2]
    asked = ["score", "--model", model_dir, *text, "--scorer", "gbis", "--json"]
    expected = by_label(layerimp_command(*asked)[1])["scorers"]
    code, out, err = layerimp_command(*asked, "--scorer", "bad")
    assert code == 1, err
    document = by_label(out)
    assert document["scorers"] == expected
    assert document["failed"]["bad"].startswith("scorer 'bad' (layerimp-b 1.2) failed")
    assert f"{kind.__name__}: 0" in document["failed"]["bad"]


@each_exit
def test_an_exit_is_the_sweeps_fault(plugged: Plug, install: Install, kind: type[BaseException]) -> None:
    class Leaving(Forward):
        """Ends."""

        def drive(self, *args: Any, **kwargs: Any) -> None:
            raise kind(0)

    bad = type("Bad", (Step,), {"name": "bad", "sweep": Leaving()})
    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [bad]))
    said = rf"the sweep of scorer 'bad' \(layerimp-b 1.2\) failed: {kind.__name__}: 0"
    with pytest.raises(PluginError, match=said):
        layerimp.score(tiny_model(), [batch()], ["bad", "block-influence"])


@in_turn("when", ["__init__", "prepare", "check", "evaluate"])
def test_an_exit_is_the_evaluators_fault(
    plugged: Plug, install: Install, layerimp_command: Run, model_dir: Path, kind: type[BaseException], when: str
) -> None:
    def leave(*_args: Any, **_kwargs: Any) -> None:
        raise kind(0)

    bad = type("Bad", (Parameters,), {"name": "bad", "__doc__": "Ends.", when: leave})
    plugged(install("bad", dist="layerimp-b", layerimp_evaluators=lambda: [bad]))
    code, out, err = layerimp_command(
        "evaluate", "--model", model_dir, "--evaluator", "bad", "--evaluator", "footprint", "--json"
    )
    said = f"evaluator 'bad' (layerimp-b 1.2) failed{' on tiny-llama' * (when == 'evaluate')}: {kind.__name__}: 0"
    if when in ("__init__", "prepare"):  # everything stops before any long work
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].startswith(f"layerimp: {said}")
    else:
        assert code == 1, err
        document = by_label(out)
        assert document["failed"]["bad"].startswith(said)
        assert document["footprint"]["original"]


@in_turn("when", ["__init__", "heal"])
def test_an_exit_is_the_healers_fault(plugged: Plug, install: Install, kind: type[BaseException], when: str) -> None:
    def leave(*_args: Any, **_kwargs: Any) -> None:
        raise kind(0)

    bad = type("Bad", (Idle,), {"name": "bad", "__doc__": "Ends.", when: leave})
    plugged(install("bad", dist="layerimp-b", layerimp_healers=lambda: [bad]))
    with pytest.raises(PluginError, match=rf"^healer 'bad' \(layerimp-b 1.2\) failed: {kind.__name__}: 0"):
        layerimp.heal(tiny_model(), [1], [batch(seed=1), batch(seed=2)], "bad")


@in_turn("hook", ["layerimp_scorers", "layerimp_assets", "layerimp_blocks", "import"])
def test_an_exit_is_the_plugins_fault(plugged: Plug, install: Install, kind: type[BaseException], hook: str) -> None:
    def leave(*_args: Any, **_kwargs: Any) -> None:
        raise kind(0)

    if hook == "import":
        plugged(install("bad", f"raise {'SystemExit' if kind.__name__ == 'Odd' else kind.__name__}(0)"))
    else:
        plugged(install("bad", **{hook: leave}))

    def ask() -> None:
        registry()
        assets()
        layerimp.find_blocks(tiny_model())

    with pytest.warns(PluginWarning, match=r"the plugin 'bad' \(layerimp-bad 1.2\) is left out: .*: 0$"):
        ask()


def test_an_interrupt_is_nobodys_fault() -> None:
    with pytest.raises(KeyboardInterrupt), attributing("scorer", "x", Step):
        raise KeyboardInterrupt
