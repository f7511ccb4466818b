"""A plugin that breaks its contract is named in one line, with its distribution, and the rest goes on."""

from __future__ import annotations

from typing import Any

import pytest
from layerimp_step import Step
from support.fake_plugins import Install, Plug
from support.mood import Run

import layerimp
from layerimp import Pruner
from layerimp.errors import PluginError, PluginWarning, UnknownNameError
from layerimp.registry.attribution import attributing
from layerimp.registry.catalog import registry


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
    with pytest.warns(PluginWarning) as warnings:
        assert registry().source(registry().get("scorer", "avss")).startswith("layerimp ")
    assert sorted(str(warning.message).split(" is left out: ")[1] for warning in warnings) == [
        "layerimp_scorers: the scorer name 'avss' is taken by the plugin 'avss'",
        f"the name 'avss' is taken by the plugin of layerimp {layerimp.__version__}",
    ]
