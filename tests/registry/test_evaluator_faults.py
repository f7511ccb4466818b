"""An evaluator that breaks its contract is named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_parameters import Parameters
from support.by_label import by_label
from support.fake_plugins import Install, Plug
from support.mood import Run

from layerimp import Evaluator, Metric
from layerimp.testing import BLOCKS


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


class Spreadless(Parameters):
    """Gives an error that nobody can know, as the standard deviation of a single value."""

    name = "bad"
    kind = "quality"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "parameters", 3.0, stderr=float("nan"))]


def test_an_error_that_is_no_number_is_not_known(
    plugged: Plug, install: Install, layerimp_command: Run, scoring: list[object]
) -> None:
    plugged(install("bad", layerimp_evaluators=lambda: [Spreadless]))
    code, out, err = layerimp_command("run", *scoring, "--scorer", "depth", "--evaluator", "bad", "--json")
    assert code == 0, err
    assert by_label(out)["metrics"]["depth"]["model"]["parameters"]["stderr"] is None


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
    report = by_label(out)
    (message,) = report["failed"].values()
    assert message.startswith(f"evaluator 'bad' (layerimp-b 1.2){said}")
    assert (code, err.splitlines()[-1]) == (1, f"failed: bad: {message}")
    assert set(report["footprint"]) == {"original", "depth"}
    assert all(costs["parameters"] for costs in report["footprint"].values())
    code, _, err = layerimp_command(*asked)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"layerimp: evaluator 'bad' (layerimp-b 1.2){said}")


class Hooking(Parameters):
    """Leaves a hook behind."""

    name = "bad"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        model.lm_head.register_forward_hook(lambda _module, _args, output: output * 0)
        return super().evaluate(model, tokenizer)


class Rounding(Parameters):
    """Changes the weights."""

    name = "bad"

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        with torch.no_grad():
            model.lm_head.weight.mul_(2)
        return super().evaluate(model, tokenizer)


@pytest.mark.parametrize(("cls", "said"), [(Rounding, "the weight lm_head.weight"), (Hooking, "a hook on lm_head")])
def test_a_changed_model_ends_the_run(
    plugged: Plug,
    install: Install,
    layerimp_command: Run,
    scoring: list[object],
    tmp_path: Path,
    cls: type[Evaluator],
    said: str,
) -> None:
    plugged(install("bad", layerimp_evaluators=lambda: [cls]))
    measured = ["--scorer", "depth", "--evaluator", "bad", "--evaluator", "footprint", "--output", tmp_path / "o"]
    code, _, err = layerimp_command("run", *scoring, *measured)
    said = f"changed {said}; no number after that could be trusted"
    assert (code, err.splitlines()[-1]) == (2, f"layerimp: evaluator 'bad' (layerimp-bad 1.2) {said}")
    assert not (tmp_path / "o").exists()
