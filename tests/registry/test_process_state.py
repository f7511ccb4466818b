"""What a plugin does to the process is named and put back."""

from __future__ import annotations

import io
import os
import random
import signal
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
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), "whether algorithms are deterministic"),
    "precision": (lambda: torch.set_float32_matmul_precision("medium"), "the precision of matrix products"),
    "stdout": (lambda: setattr(sys, "stdout", io.StringIO()), "sys.stdout"),
    "stderr": (lambda: setattr(sys, "stderr", io.StringIO()), "sys.stderr"),
    "directory": (lambda: os.chdir("/"), "the working directory"),
    "filters": (lambda: warnings.simplefilter("ignore"), "the filters of warnings"),
    "handler": (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "the handler of SIGTERM"),
    "new variable": (lambda: os.environ.update({VARIABLE: "1"}), f"the environment variable {VARIABLE}"),
    "old variable": (lambda: os.environ.pop("PATH", None), "the environment variable PATH"),
    "random": (lambda: random.seed(7), "Python's random numbers"),
    "numpy": (lambda: np.random.rand(), "numpy's random numbers"),
    "torch": (lambda: torch.rand(1), "torch's random numbers"),
}
each_misdeed = pytest.mark.parametrize("misdeed", MISDEEDS)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """Restores the state of the process after each test."""
    state = ProcessState()
    yield
    state.restore()


def told(who: str, misdeed: str) -> str:
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
    assert [str(one.message) for one in seen] == ["two"]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """What two scorers say where nothing is done to the process."""
    return dict(layerimp.score(tiny_model(), TEXT, ["block-influence", "gbis"]))


@pytest.mark.parametrize("when", ["made", "first update", "end"])
@each_misdeed
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
            if when == "first update" and (trace.batch, trace.block) == (0, 0):
                do()

        def compute(self) -> Any:
            found = super().compute()
            if when == "end":
                do()
            return found

    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [Bad]))
    state = ProcessState()
    with pytest.warns(PluginWarning) as seen:
        found = layerimp.score(tiny_model(), TEXT, ["bad", "block-influence", "gbis"])
    assert [str(one.message) for one in seen] == [told("scorer 'bad' (layerimp-b 1.2)", misdeed)]
    assert is_as_it_was(state)
    assert {name: found[name] for name in undisturbed} == undisturbed
    assert found["bad"].scores


def test_what_changes_numbers_is_put_back_in_every_batch(plugged: Plug, install: Install) -> None:
    class Late(Step):
        """Changes the dtype in the second batch."""

        name = "bad"

        def update(self, trace: Any) -> None:
            super().update(trace)
            if trace.batch == 1 and trace.block == 0:
                torch.set_default_dtype(torch.float64)

    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [Late]))
    with pytest.warns(PluginWarning, match=r"scorer 'bad' \(layerimp-b 1.2\) changed the default dtype; put back"):
        layerimp.score(tiny_model(), TEXT, ["bad", "block-influence"])


@pytest.mark.parametrize(
    ("block", "who"),
    [(1, r"the sweep of scorer 'bad' \(layerimp-b 1.2\) and scorer 'block-influence'"), (BLOCKS - 1, "scorer 'bad'")],
)
def test_what_changes_no_numbers_is_put_back_after_the_sweep(
    plugged: Plug, install: Install, block: int, who: str
) -> None:
    class Inside(Step):
        """Goes elsewhere at one block of the first batch."""

        name = "bad"

        def update(self, trace: Any) -> None:
            super().update(trace)
            if (trace.batch, trace.block) == (0, block):
                os.chdir("/")

    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [Inside]))
    state = ProcessState()
    with pytest.warns(PluginWarning, match=rf"^{who} .*changed the working directory; put back$"):
        layerimp.score(tiny_model(), TEXT, ["bad", "block-influence"])
    assert is_as_it_was(state)


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


@each_misdeed
def test_a_plugin_is_named_when_it_is_imported(
    plugged: Plug, install: Install, monkeypatch: pytest.MonkeyPatch, misdeed: str
) -> None:
    monkeypatch.setitem(sys.modules, "its_misdeed", type("Its", (), {"do": staticmethod(MISDEEDS[misdeed][0])}))  # type: ignore[arg-type]
    source = "import sys\nfrom layerimp_step import layerimp_scorers\nsys.modules['its_misdeed'].do()\n"
    plugged(install("bad", source, dist="layerimp-b"))
    state = ProcessState()
    with pytest.warns(PluginWarning) as seen:
        assert "step" in registry().names("scorer")
    assert [str(one.message) for one in seen] == [told("the plugin 'bad' (layerimp-b 1.2)", misdeed)]
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
    assert said not in state.restore()  # the command itself handles SIGTERM, and imports libraries
