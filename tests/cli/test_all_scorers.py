"""`--scorer all`: every scorer that works and fits the model, and a note about the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.by_label import by_label
from support.fake_plugins import Install, Plug
from support.mood import Run, changed
from support.tiny import saved, tiny

from layerimp.errors import ModelError
from layerimp.registry.catalog import registry
from layerimp.registry.loader import DISABLE_VARIABLE
from layerimp.scorer import Scorer
from layerimp.sweep import Forward, Trace
from layerimp.testing import BLOCKS


class Picky(Scorer):
    """Runs on no model at all."""

    name = "picky"

    class Nowhere(Forward):
        """A sweep that fails on every model."""

        def scout(self, stack: Any, sites: frozenset[str]) -> Any:
            raise ModelError(f"{type(stack.model).__name__} has no parallel universe")

    sweep = Nowhere()

    def update(self, trace: Trace) -> None:
        raise AssertionError

    def compute(self) -> Any:
        raise AssertionError


def test_all_is_every_scorer_that_works_and_fits(
    layerimp_command: Run, scoring: list[object], plugged: Plug, install: Install
) -> None:
    whole = registry().names("scorer")
    plugged(install("picky", layerimp_scorers=lambda: [Picky]), install("broken", "import no_such_module"))
    arguments = [*scoring, "--scorer", "paper=avss", "--set", "paper.variant=paper", "--scorer", "all", "--json"]
    out, err = layerimp_command.done("score", *arguments, "--set", "angular.window=2")
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: left out of all: plugins that failed to load (broken); layerimp plugins says why",
        "note: the scorer picky is left out: LlamaForCausalLM has no parallel universe",
    ]
    results = by_label(out)
    order = list(results["scorers"])
    assert set(order) == {*whole, "paper"}
    assert order[0] == "paper"
    assert order[-3:] == ["depth", "random", "angular"]  # of `all`, blind scorers come last; angular was named
    assert list(results["scorers"]["angular"]["spans"]) == ["2"]
    assert results["left_out"] == {"picky": "LlamaForCausalLM has no parallel universe"}
    code, _, err = layerimp_command("score", *scoring, "--scorer", "picky")
    assert (code, err.splitlines()[-1]) == (2, "layerimp: LlamaForCausalLM has no parallel universe")
    layerimp_command.refused("score", *arguments, "--scorer", "picky")


def test_a_scorer_of_all_that_breaks_is_left_out(
    layerimp_command: Run, scoring: list[object], plugged: Plug, install: Install
) -> None:
    class Broken(Picky):
        name = "broken"

        def __init__(self, num_blocks: int, config: Any = None) -> None:
            raise KeyError("oops")

    plugged(install("broken", layerimp_scorers=lambda: [Broken]))
    out, _ = layerimp_command.done("score", *scoring, "--scorer", "all", "--json")
    (reason,) = by_label(out)["left_out"].values()
    assert reason.startswith("scorer 'broken' (layerimp-broken 1.2) failed: KeyError: 'oops'")


def test_all_prunes_once_per_scorer_and_can_be_repeated(
    layerimp_command: Run, scoring: list[object], tmp_path: Path
) -> None:
    out, _ = layerimp_command.done("prune", *scoring, "--scorer", "all", "--output", tmp_path / "a", "--json")
    first = by_label(out)["scorers"]
    assert set(first) == set(registry().names("scorer"))
    assert all(Path(scorer["checkpoint"]).is_dir() for scorer in first.values())
    assert "all" not in json.loads((tmp_path / "a" / "recipe.json").read_text())["scorers"]
    again = layerimp_command("score", "--recipe", tmp_path / "a" / "recipe.json", "--output", tmp_path / "b", "--json")
    assert list(by_label(again[1])["scorers"]) == list(first)


def test_a_choice_that_cannot_be_removed_exactly_is_left_out(
    layerimp_command: Run, scoring: list[object], tmp_path: Path, plugged: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, "cim,closedform,gbis,lrp")  # the others are enough, and quicker
    plugged()
    saved(tiny("gpt2", scale_attn_by_inverse_layer_idx=True), tmp_path / "gpt2")
    arguments = ["prune", *changed(scoring, "--model", tmp_path / "gpt2"), "--scorer", "all", "--json", "--output"]
    out, _ = layerimp_command.done(*arguments, tmp_path / "a")
    results = by_label(out)
    assert results["left_out"]
    assert all("attn.scaling would change" in reason for reason in results["left_out"].values())
    assert all(scorer["removed"] == [BLOCKS - 1] for scorer in results["scorers"].values())
    assert results["left_out"].keys() | results["scorers"].keys() == set(registry().names("scorer"))
    code, _, err = layerimp_command(*arguments, tmp_path / "b", "--protect", BLOCKS - 1)
    said = err.splitlines()[-1]
    assert (code, "no scorer is left" in said, "attn.scaling would change" in said) == (2, True, True)


def test_nobody_left_is_an_error(
    layerimp_command: Run, scoring: list[object], plugged: Plug, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = [record.name for record in registry().plugins.records if "layerimp_scorers" in record.hooks]
    monkeypatch.setenv(DISABLE_VARIABLE, ",".join(shipped))
    plugged(install("picky", layerimp_scorers=lambda: [Picky]))
    code, _, err = layerimp_command("score", *scoring, "--scorer", "all")
    said = "layerimp: no scorer is left (picky: LlamaForCausalLM has no parallel universe)"
    assert (code, err.splitlines()[-1]) == (2, said)
