"""A scorer that breaks its contract is named in one line, with its distribution, and the other scorers go on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_step import Step
from support.broken_scorers import Hooking
from support.by_label import by_label
from support.fake_plugins import Install, Plug
from support.mood import Run

import layerimp
from layerimp import Importance, Scorer
from layerimp.errors import PluginError
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure
from layerimp.sweep import Backward
from layerimp.sweep.cache import BlockCache
from layerimp.testing import batch, padded_batch, tiny_model


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


HARMFUL: list[tuple[type[Scorer], str]] = [
    (Writing, r"it wrote into acts\['block_out'\] at block 0, batch 1, which is borrowed; reduce a copy"),
    (WritingGradients, r"it wrote into acts\['block_out_grad'\] at block 3, batch 0, which is borrowed"),
]
WRONG_SCORERS: list[tuple[type[Scorer], str]] = [
    (Raising, "failed at block 2, batch 1: KeyError: 'oops'"),
    (Ending, "failed at the end of the text: KeyError: 'oops'"),
    (Peeping, r"it reads the site 'mlp_out', which is not in its `observes` \(block_in, block_out\)"),
    (NotFinite, "the score of block 0 is nan"),
    (Listing, r"compute\(\) gives list, not an Importance"),
]
TEXT = [batch(seed=1), padded_batch(seed=2)]


@pytest.mark.parametrize(("cls", "said"), [*WRONG_SCORERS, *HARMFUL], ids=lambda value: getattr(value, "__name__", ""))
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
    expected, report = by_label(out), by_label(again)
    assert report["scorers"] == expected["scorers"]
    (message,) = report["failed"].values()
    assert message.startswith("scorer 'bad' (layerimp-b 1.2)")
    assert err.splitlines()[-1] == f"failed: bad: {message}"
    assert (tmp_path / "o" / "results.json").exists()
    code, _, err = layerimp_command("score", *scoring, "--scorer", "bad")
    assert (code, err.splitlines()[-1]) == (2, f"layerimp: {message}")


@pytest.mark.parametrize(("cls", "said"), HARMFUL, ids=lambda value: getattr(value, "__name__", ""))
def test_a_scorer_that_harms_others_ends_the_scoring(
    plugged: Plug, install: Install, cls: type[Scorer], said: str, layerimp_command: Run, scoring: list[object]
) -> None:
    plugged(install("bad", dist="layerimp-b", layerimp_scorers=lambda: [cls]))
    code, _, err = layerimp_command("score", *scoring, "--scorer", "block-influence", "--scorer", "bad")
    assert code == 2
    assert re.match(rf"layerimp: scorer 'bad' \(layerimp-b 1.2\): {said}", err.splitlines()[-1])


def test_no_later_pass_uses_what_a_scorer_wrote_into() -> None:
    model = tiny_model()
    stack = layerimp.find_blocks(model)
    cache, own = BlockCache(stack), registry().get("scorer", "block-influence")
    with pytest.raises(PluginError, match="it wrote into"):
        measure(stack, TEXT, {"bad": Writing(len(stack)), "own": own(len(stack))}, cache=cache)
    again = measure(stack, TEXT, {"own": own(len(stack))}, cache=cache)
    assert again == measure(stack, TEXT, {"own": own(len(stack))})


def test_who_came_along_unnamed_and_fails_is_left_out(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object]
) -> None:
    plugged(install("bad", layerimp_scorers=lambda: [NotFinite]))
    code, out, err = layerimp_command("score", *scoring, "--scorer", "all", "--json")
    assert code == 0, err
    report = by_label(out)
    assert "the score of block 0 is nan" in report["left_out"]["bad"]
    assert "failed" not in report


def test_what_the_model_does_is_not_a_scorers_fault(plugged: Plug, install: Install) -> None:
    plugged(install("bad", layerimp_scorers=lambda: [Raising]))
    model = tiny_model()
    model.model.layers[1].mlp.register_forward_hook(lambda _m, _a, out: out * torch.nan)
    with pytest.raises(layerimp.LayerimpError, match=r"^block 1 puts out a NaN"):
        layerimp.score(model, TEXT[:1], ["bad", "block-influence"])


def test_a_sweep_that_leaves_a_hook_behind_ends_the_scoring(plugged: Plug, install: Install) -> None:
    plugged(install("bad", layerimp_scorers=lambda: [type("Bad", (Step,), {"name": "bad", "sweep": Hooking()})]))
    with pytest.raises(PluginError, match=r"the sweep of scorer 'bad' .* changed a hook on"):
        layerimp.score(tiny_model(), TEXT, ["bad"])


def test_the_line_of_the_fault_is_named(plugged: Plug, install: Install) -> None:
    plugged(install("bad", layerimp_scorers=lambda: [Raising]))
    with pytest.raises(PluginError) as caught:
        layerimp.score(tiny_model(), TEXT, ["bad"])
    (line,) = re.findall(rf"KeyError: 'oops' \({Path(__file__).name}, line (\d+)\)$", str(caught.value))
    assert 'raise KeyError("oops")' in Path(__file__).read_text().splitlines()[int(line) - 1]
