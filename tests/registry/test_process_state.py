"""What a plugin does to the process is named and put back."""

from __future__ import annotations

import io
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layerimp_parameters import Parameters
from layerimp_step import Step
from support.broken_healers import Idle
from support.fake_plugins import Install, Plug
from support.mood import Run

import layerimp
from layerimp import Metric, PrunePlan, Pruner
from layerimp.errors import PluginWarning
from layerimp.registry.catalog import registry
from layerimp.registry.process_state import ProcessState
from layerimp.sweep import Forward
from layerimp.testing import BLOCKS, batch, padded_batch, tiny_model

TEXT = [batch(seed=1), padded_batch(seed=2)]
VARIABLE = "LAYERIMP_TEST_OF_PROCESS_STATE"
MISDEEDS: dict[str, tuple[Callable[[], object], str]] = {
    "dtype": (lambda: torch.set_default_dtype(torch.float64), "the default dtype"),
    "device": (lambda: torch.set_default_device("meta"), "the default device"),
    "gradients": (lambda: torch.set_grad_enabled(not torch.is_grad_enabled()), "whether gradients are computed"),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), "autocast"),
    "threads": (lambda: torch.set_num_threads(torch.get_num_threads() + 1), "the number of threads"),
    "determinism": (lambda: torch.use_deterministic_algorithms(True), "whether algorithms are deterministic"),
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "torch.backends.cudnn.benchmark"),
    "precision": (lambda: torch.set_float32_matmul_precision("medium"), "the precision of matrix products"),
    "stdout": (lambda: setattr(sys, "stdout", io.StringIO()), "sys.stdout"),
    "stderr": (lambda: setattr(sys, "stderr", io.StringIO()), "sys.stderr"),
    "directory": (lambda: os.chdir("/"), "the working directory"),
    "filters": (lambda: warnings.simplefilter("ignore"), "the filters of warnings"),
    "new variable": (lambda: os.environ.update({VARIABLE: "1"}), f"the environment variable {VARIABLE}"),
    "old variable": (lambda: os.environ.pop("PATH", None), "the environment variable PATH"),
    "random": (lambda: random.seed(7), "Python's random numbers"),
    "numpy": (lambda: np.random.rand(), "numpy's random numbers"),
    "torch": (lambda: torch.rand(1), "torch's random numbers"),
}
NUMERIC = {"dtype", "device", "gradients", "autocast", "threads", "determinism", "cudnn", "precision"}
"""The misdeeds that change what other scorers compute."""
each_misdeed = pytest.mark.parametrize("misdeed", MISDEEDS)
MOMENTS = ("made", "update", "end")
in_turn = pytest.mark.parametrize(
    ("misdeed", "when"),
    [
        pytest.param(misdeed, when, marks=[pytest.mark.slow] * (MOMENTS[number % 3] != when))
        for number, misdeed in enumerate(MISDEEDS)
        for when in MOMENTS
    ],
)
"""Each misdeed at one of the moments, in turn; the slow tests try each at all of them."""


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """Restores the state of the process after each test."""
    state = ProcessState()
    yield
    state.restore()


def line(who: str, misdeed: str) -> str:
    """The line that reports a misdeed."""
    return f"{who} changed {MISDEEDS[misdeed][1]}; put back"


def is_as_it_was(state: ProcessState) -> bool:
    """Whether nothing has to be restored."""
    return state.restore() == []


@each_misdeed
def test_all_that_is_changed_is_put_back(misdeed: str) -> None:
    outer, inner = ProcessState(), ProcessState()
    MISDEEDS[misdeed][0]()
    assert inner.restore() == [MISDEEDS[misdeed][1]]
    assert is_as_it_was(outer)


def test_random_numbers_go_on_where_they_were() -> None:
    def drawn() -> tuple[float, ...]:
        return random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(1))

    state = ProcessState()
    expected = drawn()
    state.restore()
    assert drawn() == expected


def test_warnings_are_as_they_were() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        state = ProcessState()
        warnings.simplefilter("ignore")
        warnings.warn("one", stacklevel=1)
        state.restore()
        warnings.warn("two", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["two"]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """What two scorers say where nothing is done to the process."""
    return dict(layerimp.score(tiny_model(), TEXT, ["block-influence", "gbis"]))


@in_turn
def test_a_scorer_is_named_and_the_others_are_right(
    plugged: Plug, install: Install, undisturbed: dict[str, Any], misdeed: str, when: str
) -> None:
    do = MISDEEDS[misdeed][0]

    class Bad(Step):
        """Does something to the process."""

        name = "bad"

        def __init__(self, num_blocks: int, config: Any = None) -> None:
            super().__init__(num_blocks, config)
            if when == "made":
                do()

        def update(self, trace: Any) -> None:
            super().update(trace)
            if when == "update" and (trace.batch, trace.block) == (0, 0):
                do()

        def compute(self) -> Any:
            importance = super().compute()
            if when == "end":
                do()
            return importance

    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [Bad]))
    state = ProcessState()
    with pytest.warns(PluginWarning) as seen:
        scores = layerimp.score(tiny_model(), TEXT, ["bad", "block-influence", "gbis"])
    who = "scorer 'bad' (layerimp-b 1.2)"
    if when == "update" and misdeed not in NUMERIC:
        # What changes no numbers of others is put back after the sweep, and found on all who share it.
        who = f"the sweep of {who} and scorer 'block-influence' (layerimp {layerimp.__version__})"
    assert [str(warning.message) for warning in seen] == [line(who, misdeed)]
    assert is_as_it_was(state)
    assert {name: scores[name] for name in undisturbed} == undisturbed
    assert scores["bad"].scores


@pytest.mark.parametrize(
    ("batch", "names"),
    [
        (0, ["bad", "block-influence"]),
        (1, ["block-influence", "bad"]),
        (1, ["bad"]),
        pytest.param(0, ["bad"], marks=pytest.mark.slow),
        pytest.param(0, ["block-influence", "bad"], marks=pytest.mark.slow),
        pytest.param(1, ["bad", "block-influence"], marks=pytest.mark.slow),
    ],
)
def test_what_changes_numbers_is_put_back_wherever_it_is_done(
    plugged: Plug, install: Install, undisturbed: dict[str, Any], batch: int, names: list[str]
) -> None:
    class Reckless(Step):
        """Changes the default dtype and device at one block of a batch."""

        name = "bad"

        def update(self, trace: Any) -> None:
            super().update(trace)
            if (trace.batch, trace.block) == (batch, 2):
                torch.set_default_dtype(torch.float64)
                torch.set_default_device("meta")

    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [Reckless]))
    state = ProcessState()
    with pytest.warns(PluginWarning) as seen:
        scores = layerimp.score(tiny_model(), TEXT, names)
    changed = "scorer 'bad' (layerimp-b 1.2) changed the default dtype and the default device; put back"
    assert [str(warning.message) for warning in seen] == [changed]
    assert is_as_it_was(state)
    assert scores["bad"].scores == layerimp.score(tiny_model(), TEXT, {"step": Step(BLOCKS)})["step"].scores
    if "block-influence" in names:
        assert scores["block-influence"] == undisturbed["block-influence"]


def test_who_fails_by_the_misdeed_of_another_is_not_left_out(
    plugged: Plug, install: Install, undisturbed: dict[str, Any]
) -> None:
    class Strict(Step):
        """Fails under another dtype than the usual one."""

        name = "strict"

        def update(self, trace: Any) -> None:
            super().update(trace)
            assert torch.get_default_dtype() == torch.float32

    class Bad(Step):
        """Changes the default dtype."""

        name = "bad"

        def update(self, trace: Any) -> None:
            super().update(trace)
            torch.set_default_dtype(torch.float64)

    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [Bad, Strict]))
    with pytest.warns(PluginWarning, match=r"^scorer 'bad' \(layerimp-b 1.2\) changed the default dtype; put back$"):
        scores = layerimp.score(tiny_model(), TEXT, ["bad", "strict"])
    assert scores["strict"].scores == scores["bad"].scores


def test_the_state_is_read_around_a_pass_and_not_around_its_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[bool] = []
    real = ProcessState._read
    monkeypatch.setattr(ProcessState, "_read", lambda state: [reads.append(True), real(state)][1])

    def count(batches: int) -> int:
        reads.clear()
        layerimp.score(tiny_model(), [batch(seed=seed) for seed in range(batches)], ["block-influence"])
        return len(reads)

    layerimp.score(tiny_model(), TEXT, ["block-influence"])  # loads the plugins
    assert count(1) == count(4) > 0


def test_a_sweep_is_named(plugged: Plug, install: Install) -> None:
    class Moving(Forward):
        """Goes elsewhere."""

        def drive(self, *args: Any, **kwargs: Any) -> None:
            os.chdir("/")
            super().drive(*args, **kwargs)

    bad = type("Bad", (Step,), {"name": "bad", "sweep": Moving()})
    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [bad]))
    state = ProcessState()
    with pytest.warns(
        PluginWarning, match=r"the sweep of scorer 'bad' \(layerimp-b 1.2\) changed the working directory"
    ):
        layerimp.score(tiny_model(), TEXT, ["bad"])
    assert is_as_it_was(state)


@pytest.mark.parametrize(
    "misdeed",
    [
        pytest.param(misdeed, marks=[pytest.mark.slow] * (misdeed not in ("dtype", "directory", "torch")))
        for misdeed in MISDEEDS
    ],
)
def test_a_plugin_is_named_when_it_is_imported(
    plugged: Plug, install: Install, monkeypatch: pytest.MonkeyPatch, misdeed: str
) -> None:
    monkeypatch.setitem(sys.modules, "its_misdeed", type("Its", (), {"do": staticmethod(MISDEEDS[misdeed][0])}))  # type: ignore[arg-type]
    source = "import sys\nfrom layerimp_step import layerimp_scorers\nsys.modules['its_misdeed'].do()\n"
    plugged(install("bad", source, dist="layerimp-b"))
    state = ProcessState()
    with pytest.warns(PluginWarning) as seen:
        assert "step" in registry().names("scorer")
    assert [str(warning.message) for warning in seen] == [line("the plugin 'bad' (layerimp-b 1.2)", misdeed)]
    assert is_as_it_was(state)


@pytest.mark.parametrize("kind", ["scorers", "pruners", "healers", "evaluators"])
def test_a_plugin_is_named_when_it_is_asked(plugged: Plug, install: Install, kind: str) -> None:
    hooks = {f"layerimp_{kind}": lambda: [torch.set_default_dtype(torch.float64)][:0]}
    plugged(install("bad", dist="layerimp-b", **hooks))
    with pytest.warns(
        PluginWarning, match=r"^the plugin 'bad' \(layerimp-b 1.2\) changed the default dtype; put back$"
    ):
        registry()
    assert torch.get_default_dtype() == torch.float32


def test_a_finder_of_blocks_is_named(plugged: Plug, install: Install) -> None:
    plugged(install("bad", layerimp_blocks=lambda model: [torch.set_grad_enabled(False), None][1]))
    with pytest.warns(PluginWarning, match="the plugin 'bad' .* changed whether gradients are computed"):
        layerimp.find_blocks(tiny_model())
    assert torch.is_grad_enabled()


class Thief(Pruner):
    """Changes the dtype, and removes the first blocks."""

    name = "bad"

    def plan(self, scoring: Any, budget: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        return PrunePlan(num_blocks=budget.num_blocks, blocks=list(range(budget.count)))


class Mover(Parameters):
    """Goes elsewhere."""

    name = "bad"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        os.chdir("/")
        return super().evaluate(model, tokenizer)


class Seeder(Idle):
    """Seeds."""

    name = "bad"

    def heal(self, case: Any) -> Any:
        torch.manual_seed(1)
        return super().heal(case)


@pytest.mark.parametrize(
    ("option", "cls", "said"),
    [
        ("pruner", Thief, "the default dtype"),
        ("evaluator", Mover, "the working directory"),
        ("heal", Seeder, "torch's random numbers"),
    ],
)
def test_every_kind_of_component_is_named(
    plugged: Plug,
    install: Install,
    layerimp_command: Run,
    model_dir: Path,
    calibration_file: Path,
    option: str,
    cls: type,
    said: str,
) -> None:
    kind = "healer" if option == "heal" else option
    plugged(install("bad", dist="layerimp-b", **{f"layerimp_{kind}s": lambda: [cls]}))
    text = ["--calibration", calibration_file, "--samples", 4, "--max-length", 16, "--batch-size", 2]
    state = ProcessState()
    code, _, err = layerimp_command("run", "--model", model_dir, *text, "--tasks", "none", f"--{option}", "bad")
    assert code == 0, err
    assert err.splitlines().count(f"layerimp: {kind} 'bad' (layerimp-b 1.2) changed {said}; put back") == 1
    assert said not in state.restore()  # the command itself imports libraries
