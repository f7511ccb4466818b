"""A plugin that breaks its contract is named in one line, with its distribution, and the rest goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_parameters import Parameters
from layerimp_step import Step
from support.fake_plugins import Install
from support.mood import Run

import layerimp
from layerimp import Importance, Metric, Pruner, Scorer
from layerimp.errors import PluginError, PluginWarning, UnknownNameError
from layerimp.registry.attribution import attributing
from layerimp.registry.catalog import registry
from layerimp.registry.loader import PluginHost
from layerimp.sweep import Backward, Forward
from layerimp.testing import BLOCKS, batch, padded_batch, tiny_model

Plug = Callable[..., None]


class Raising(Step):
    """Raises in the middle of the set."""

    name = "bad"

    def update(self, trace: Any) -> None:
        if trace.batch == 1 and trace.block == 2:
            raise KeyError("oops")
        super().update(trace)


class Ending(Step):
    """Raises at the end."""

    name = "bad"

    def end_sweep(self) -> None:
        raise KeyError("oops")


class Writing(Step):
    """Subtracts in place from a tensor that other scorers read."""

    name = "bad"

    def update(self, trace: Any) -> None:
        if trace.batch == 1:
            trace.acts["block_out"].sub_(trace.acts["block_in"])
        super().update(trace)


class WritingGradients(Step):
    """Does so on the backward pass."""

    name = "bad"
    sweep = Backward()
    observes = frozenset({"block_in", "block_out", "block_out_grad"})
    identity_scores_least = False

    def update(self, trace: Any) -> None:
        trace.acts["block_out_grad"].zero_()
        super().update(trace)


class Peeping(Step):
    """Reads a site that only another scorer observes."""

    name = "bad"

    def update(self, trace: Any) -> None:
        trace.acts["mlp_out"].sum()


class NotFinite(Step):
    """Divides by nothing."""

    name = "bad"

    def compute(self) -> Importance:
        return Importance(scores=[float("nan")] * self.num_blocks)


class Listing(Step):
    """Gives a list."""

    name = "bad"

    def compute(self) -> Any:
        return super().compute().scores


class Unmakeable(Step):
    """Cannot be made."""

    name = "bad"

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        raise KeyError("oops")


WRONG_SCORERS: list[tuple[type[Scorer], str]] = [
    (Raising, "failed at block 2, batch 1: KeyError: 'oops'"),
    (Ending, "failed at the end of the text: KeyError: 'oops'"),
    (Writing, r"it wrote into acts\['block_out'\] at block 0, batch 1, which is borrowed; reduce a copy"),
    (WritingGradients, r"it wrote into acts\['block_out_grad'\] at block 3, batch 0, which is borrowed"),
    (Peeping, r"it reads the site 'mlp_out', which is not in its `observes` \(block_in, block_out\)"),
    (NotFinite, "the score of block 0 is nan"),
    (Listing, r"compute\(\) gives list, not an Importance"),
]
TEXT = [batch(seed=1), padded_batch(seed=2)]


@pytest.mark.parametrize(("cls", "said"), WRONG_SCORERS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_scorer_is_named(plugged: Plug, install: Install, cls: type[Scorer], said: str) -> None:
    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [cls]))
    with pytest.raises(layerimp.LayerimpError, match=rf"^scorer 'x' \(layerimp-b 1.2\).* {said}") as caught:
        layerimp.score(tiny_model(), TEXT, {"x": "bad"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cls", [cls for cls, _ in WRONG_SCORERS] + [Unmakeable], ids=lambda cls: cls.__name__)
def test_the_other_scorers_go_on(
    plugged: Plug, install: Install, cls: type[Scorer], layerimp_command: Run, scoring: list[object], tmp_path: Path
) -> None:
    others = ["--scorer", "block-influence", "--scorer", "gbis"]
    code, out, err = layerimp_command("score", *scoring, *others, "--json")
    assert code == 0, err
    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [cls]))
    code, again, err = layerimp_command(
        "score", *scoring, *others, "--scorer", "bad", "--json", "--output", tmp_path / "o"
    )
    assert code == 1, err
    expected, found = json.loads(out), json.loads(again)
    assert found["scorers"] == expected["scorers"]
    (told,) = found["failed"].values()
    assert told.startswith("scorer 'bad' (layerimp-b 1.2)")
    assert err.splitlines()[-1] == f"failed: bad: {told}"
    assert (tmp_path / "o" / "scores.json").exists()
    code, _, err = layerimp_command("score", *scoring, "--scorer", "bad")
    assert (code, err.splitlines()[-1]) == (2, f"layerimp: {told}")


def test_who_came_along_unnamed_and_fails_is_left_out(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object]
) -> None:
    plugged(install("bad", layerimp_scorers=lambda: [NotFinite]))
    code, out, err = layerimp_command("score", *scoring, "--scorer", "all", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert "the score of block 0 is nan" in found["left_out"]["bad"]
    assert "failed" not in found


@pytest.fixture
def scoring(model_dir: Path, calibration_file: Path) -> list[object]:
    return [
        "--model",
        model_dir,
        "--calibration",
        calibration_file,
        "--samples",
        4,
        "--batch-size",
        2,
        "--max-length",
        16,
    ]


def test_what_the_model_does_is_not_a_scorers_fault(plugged: Plug, install: Install) -> None:
    plugged(install("bad", layerimp_scorers=lambda: [Raising]))
    model = tiny_model()
    model.model.layers[1].mlp.register_forward_hook(lambda _m, _a, out: out * torch.nan)
    with pytest.raises(layerimp.LayerimpError, match=r"^block 1 puts out a NaN"):
        layerimp.score(model, TEXT[:1], ["bad", "block-influence"])


class Spendthrift(Pruner):
    """Removes too much."""

    name = "bad"

    def plan(self, scoring: Any, budget: Any) -> Any:
        return layerimp.PrunePlan(num_blocks=budget.num_blocks, blocks=list(range(budget.count + 1)))


class Planless(Pruner):
    """Gives no plan."""

    name = "bad"

    def plan(self, scoring: Any, budget: Any) -> Any:
        return scoring(()).weakest_first()[: budget.count]


class Stumbling(Pruner):
    """Raises."""

    name = "bad"

    def plan(self, scoring: Any, budget: Any) -> Any:
        return [][0]


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Spendthrift, ": it broke its budget: 1 block, got [0, 1]"),
        (Planless, ": plan() gives list, not a PrunePlan"),
        (Stumbling, " failed on the scores of step: IndexError: list index out of range"),
    ],
)
def test_a_pruner_is_named(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object], cls: type[Pruner], said: str
) -> None:
    bad = install("bad", dist="layerimp-b", layerimp_pruners=lambda: [cls])
    plugged(install("step", layerimp_scorers=lambda: [Step]), bad)
    code, _, err = layerimp_command("run", *scoring, "--tasks", "none", "--scorer", "step", "--pruner", "bad")
    assert code == 2
    assert err.splitlines()[-1].startswith(f"layerimp: pruner 'bad' (layerimp-b 1.2){said}")


class Falling(Parameters):
    """Raises when blocks are gone."""

    name = "bad"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        if len(model.model.layers) < BLOCKS:
            raise KeyError("oops")
        return [Metric("model", "layers", BLOCKS)]


class Numbers(Parameters):
    """Gives a number."""

    name = "bad"

    def evaluate(self, model: Any, tokenizer: Any) -> Any:
        return super().evaluate(model, tokenizer)[0].value


class NotANumber(Parameters):
    """Gives NaN."""

    name = "bad"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "parameters", float("nan"))]


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Falling, " failed on depth: KeyError: 'oops'"),
        (Numbers, ": evaluate() gives no list of Metric"),
        (NotANumber, ": parameters of model is NaN"),
    ],
)
def test_an_evaluator_is_named_and_the_others_go_on(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object], cls: Any, said: str
) -> None:
    plugged(
        install("parameters", layerimp_evaluators=lambda: [Parameters]),
        install("bad", dist="layerimp-b", layerimp_evaluators=lambda: [cls]),
    )
    asked = ["run", *scoring, "--scorer", "depth", "--evaluator", "bad"]
    code, out, err = layerimp_command(*asked, "--evaluator", "parameters", "--json")
    found = json.loads(out)
    (told,) = found["failed"].values()
    assert told.startswith(f"evaluator 'bad' (layerimp-b 1.2){said}")
    assert (code, err.splitlines()[-1]) == (1, f"failed: bad: {told}")
    assert set(found["footprint"]) == {"original", "depth"}
    assert all(costs["parameters"] for costs in found["footprint"].values())
    code, _, err = layerimp_command(*asked)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"layerimp: evaluator 'bad' (layerimp-b 1.2){said}")


class Hooking(Parameters):
    """Leaves a hook, a patch and another mode behind."""

    name = "bad"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        model.lm_head.register_forward_hook(lambda _module, _args, output: output * 0)
        model.model.norm.forward = lambda hidden: hidden
        model.train()
        return super().evaluate(model, tokenizer)


class Rounding(Parameters):
    """Changes the weights."""

    name = "bad"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
        return super().evaluate(model, tokenizer)


def test_what_an_evaluator_leaves_behind_is_taken_away(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object], task: Path
) -> None:
    plugged(install("bad", layerimp_evaluators=lambda: [Hooking]))
    asked = ["run", *scoring, "--scorer", "depth", "--tasks", task, "--json", "--evaluator", "harness"]
    code, clean, err = layerimp_command(*asked)
    assert code == 0, err
    code, out, err = layerimp_command(*asked, "--evaluator", "bad")
    assert code == 0, err
    assert "note: evaluator 'bad' (layerimp-bad 1.2) left a hook on lm_head behind and " in err
    assert json.loads(out)["metrics"] == json.loads(clean)["metrics"]


def test_a_changed_weight_ends_the_run(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object], tmp_path: Path
) -> None:
    plugged(install("bad", layerimp_evaluators=lambda: [Rounding]))
    code, _, err = layerimp_command(
        "run",
        *scoring,
        "--scorer",
        "depth",
        "--evaluator",
        "bad",
        "--evaluator",
        "footprint",
        "--output",
        tmp_path / "o",
    )
    said = "changed the weight lm_head.weight; no number after that could be trusted"
    assert (code, err.splitlines()[-1]) == (2, f"layerimp: evaluator 'bad' (layerimp-bad 1.2) {said}")
    assert not (tmp_path / "o").exists()


class LeavingHook(Forward):
    """Leaves a hook on a block."""

    def drive(self, stack: Any, *args: Any, **kwargs: Any) -> None:
        stack[0].register_forward_hook(lambda *_: None)
        super().drive(stack, *args, **kwargs)


def test_what_a_sweep_leaves_behind_is_taken_away(plugged: Plug, install: Install) -> None:
    plugged(install("bad", layerimp_scorers=lambda: [type("Bad", (Step,), {"name": "bad", "sweep": LeavingHook()})]))
    model = tiny_model()
    before = layerimp.score(model, TEXT, ["block-influence"])
    layerimp.score(model, TEXT, ["bad"])
    assert not any(module._forward_hooks for module in model.modules())
    assert layerimp.score(model, TEXT, ["block-influence"]) == before


def test_a_slow_plugin_is_named(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.1, 10.0, 13.5])
    monkeypatch.setattr("layerimp.registry.loader.perf_counter", lambda: next(ticks))
    points = [install("quick", layerimp_scorers=lambda: []), install("slow", layerimp_scorers=lambda: [Step])]
    with pytest.warns(PluginWarning, match=r"^the plugin 'slow' \(layerimp-slow 1.2\) took 3.5 s to import; ") as told:
        host = PluginHost(points, blocked=())
    assert len(told) == 1
    assert [(record.status, record.seconds) for record in host.records] == [("ok", 0.1), ("ok", 3.5)]


def test_a_warning_is_one_line_of_the_command(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object]
) -> None:
    plugged(install("bad", layerimp_blocks=lambda model: 1 / 0))
    code, _, err = layerimp_command("score", *scoring, "--scorer", "depth")
    assert code == 0, err
    said = "the plugin 'bad' (layerimp-bad 1.2) is left out: layerimp_blocks: ZeroDivisionError: division by zero"
    assert err.splitlines().count(f"layerimp: {said}") == 1


def test_an_error_names_nobody_twice() -> None:
    class Asking(Pruner):
        """Has a scoring that fails."""

        name = "asking"

        def plan(self, scoring: Any, budget: Any) -> Any:
            return scoring((0,))

    def scoring(_removed: Any) -> Any:
        with attributing("scorer", "inner", Step):
            raise ValueError("oops")

    with (
        pytest.raises(PluginError, match=r"^scorer 'inner' [^:]*failed: ValueError: oops$"),
        attributing("pruner", "p", Asking),
    ):
        Asking().plan(scoring, None)


def test_who_failed_to_load_is_named_where_a_name_is_unknown(plugged: Plug, install: Install) -> None:
    plugged(install("bad", "1 / 0", dist="layerimp-b"))
    with pytest.warns(PluginWarning, match=r"the plugin 'bad' \(layerimp-b 1.2\) is left out: ZeroDivisionError"):
        registry()
    with pytest.raises(UnknownNameError, match=r"unknown scorer 'mine'.*Plugins that failed: bad \(layerimp-b 1.2\);"):
        registry().get("scorer", "mine")


def test_nobody_takes_the_names_of_what_ships(plugged: Plug, install: Install) -> None:
    thief = type("Thief", (Step,), {"name": "avss"})
    plugged(
        install("aaa", layerimp_scorers=lambda: [thief]), install("avss", dist="b", layerimp_scorers=lambda: [Step])
    )
    with pytest.warns(PluginWarning) as told:
        assert registry().source(registry().get("scorer", "avss")).startswith("layerimp ")
    assert sorted(str(one.message).split(" is left out: ")[1] for one in told) == [
        "layerimp_scorers: the scorer name 'avss' is taken by the plugin 'avss'",
        f"the name 'avss' is taken by the plugin of layerimp {layerimp.__version__}",
    ]


def test_the_line_of_the_fault_is_named(plugged: Plug, install: Install) -> None:
    plugged(install("bad", layerimp_scorers=lambda: [Raising]))
    with pytest.raises(PluginError) as caught:
        layerimp.score(tiny_model(), TEXT, ["bad"])
    (line,) = re.findall(r"KeyError: 'oops' \(test_guard_rails.py, line (\d+)\)$", str(caught.value))
    assert 'raise KeyError("oops")' in Path(__file__).read_text().splitlines()[int(line) - 1]
