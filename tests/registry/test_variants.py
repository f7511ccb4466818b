"""A plugin gives names to presets of its options, and users type them like any other name."""

from __future__ import annotations

from typing import Any

import pytest
from layerimp_avss import AVSS
from layerimp_step import Step
from support.fake_plugins import Install, Plug
from support.mood import Run

from layerimp.component import Options
from layerimp.errors import OptionError, PluginWarning, UnknownNameError
from layerimp.progress import SILENT
from layerimp.recipe import ComponentSpec
from layerimp.registry.catalog import Registry, registry
from layerimp.registry.loader import PluginHost
from layerimp.scoring.selection import check_spec, expanded


class Config(Options):
    """Options with two numbers."""

    near: int = 1
    far: int = 2


def varied(name: str = "wide", **variants: Any) -> type[Step]:
    return type("Wide", (Step,), {"name": name, "Config": Config, "variants": variants})


def test_a_variant_is_its_scorer_with_other_options(plugged: Plug, install: Install) -> None:
    cls = varied(wider={"far": 9}, widest={"near": 5, "far": 99})
    plugged(install("w", layerimp_scorers=lambda: [cls]))
    known = registry()
    assert known.get("scorer", "widest") is cls
    assert known.options("scorer", "widest", {"near": 7}) == Config(near=7, far=99)
    assert known.create("scorer", "wider", {}, 4).config == Config(far=9)
    assert known.origin("scorer", "wider") == "w"
    assert known.summaries("scorer")["widest"] == "wide with near=5, far=99"
    with pytest.raises(UnknownNameError, match=r"unknown scorer 'widset'\. Did you mean 'widest'"):
        known.get("scorer", "widset")


def test_a_subclass_of_another_plugins_scorer_has_no_variants_of_it(plugged: Plug, install: Install) -> None:
    plugged(install("w", layerimp_scorers=lambda: [type("Mine", (AVSS,), {"name": "mine"})]))
    assert registry().variants("scorer", "mine") == {}
    assert registry().variants("scorer", "avss")["avss-delta"] == {"site": "block_delta"}
    assert registry().get("scorer", "avss-delta") is AVSS


def test_all_scorers_are_not_all_variants(plugged: Plug, install: Install) -> None:
    plugged(install("w", layerimp_scorers=lambda: [varied(wider={"far": 9})]))
    every = expanded({"all": ComponentSpec(name="all")}, SILENT)
    assert {"wide", "avss"} <= every.keys()
    assert not {"wider", "avss-delta", "gbis-norm"} & {*every, *registry().names("scorer")}
    assert registry().plugins.record("w").components == {"scorer": ["wide"]}


@pytest.mark.parametrize(
    ("variants", "error"),
    [
        ({"avss": {}}, "the scorer name 'avss' is taken by the plugin 'avss'"),
        ({"avss-delta": {}}, "the scorer name 'avss-delta' is taken by the plugin 'avss'"),
        ({"wide": {}}, "two scorers are named 'wide'"),
        ({"wider": {"fra": 1}}, "unknown option 'fra' of scorer 'wider'. Did you mean 'far'"),
        ({"wider": {"far": "x"}}, "option 'far' of scorer 'wider'"),
    ],
)
def test_a_wrong_variant_is_the_plugins_fault(
    plugged: Plug, install: Install, variants: dict[str, Any], error: str
) -> None:
    plugged(install("w", layerimp_scorers=lambda: [varied(**variants)]))
    with pytest.warns(PluginWarning, match=error):
        known = registry()
    assert "wide" not in known.summaries("scorer")
    assert known.get("scorer", "avss") is AVSS


def test_a_plugin_that_fails_leaves_no_variant(install: Install) -> None:
    def fail() -> None:
        raise RuntimeError

    point = install("w", layerimp_scorers=lambda: [varied(wider={"far": 9})], layerimp_evaluators=fail)
    assert Registry(PluginHost([point], blocked=())).summaries("scorer") == {}


def test_a_variants_name_is_a_label_for_nothing_else() -> None:
    check_spec("avss-delta", ComponentSpec(name="avss", options={"site": "block_delta"}))
    check_spec("avss-delta", ComponentSpec(name="avss-delta", options={"epsilon": 0.2}))
    check_spec("mine", ComponentSpec(name="avss-delta"))
    for options in ({}, {"site": "block_out"}, {"site": "block_delta", "epsilon": 0.2}):
        with pytest.raises(OptionError, match="the label 'avss-delta' is the name of another scorer than 'avss'"):
            check_spec("avss-delta", ComponentSpec(name="avss", options=options))


def test_variants_that_ship_are_listed(layerimp_command: Run) -> None:
    listed = layerimp_command("scorers")[1]
    assert "variant avss-delta: site=block_delta" in listed
    assert "variant gbis-norm: variant=grad_norm" in listed
    code, out, _ = layerimp_command("scorers", "avss-paper")
    assert code == 0
    assert out.startswith("avss-paper: avss with variant=paper\n")
    assert "epsilon (float, default 1e-05)" in out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mine", "For a label of your own, name its scorer: --scorer mine=SCORER --set mine.OPTION=VALUE."),
        ("delta", "Did you mean 'avss-delta'"),
        ("avss-out", "For a label of your own, name its scorer: --scorer avss-out=SCORER"),
    ],
)
def test_what_looks_like_a_label_is_answered_with_how_labels_are_written(
    layerimp_command: Run, name: str, expected: str
) -> None:
    code, _, err = layerimp_command("score", "--scorer", name)
    assert code == 2
    assert expected in err.splitlines()[-1]
    assert "For a label" not in layerimp_command("score", "--scorer", "avs")[2]
