"""A broken plugin never breaks the host."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field
from support.fake_plugins import Install

import layerimp
from layerimp import Evaluator, Healer, Pruner, Scorer
from layerimp.component import Component, Options
from layerimp.errors import OptionError, PluginError, UnknownNameError
from layerimp.registry.catalog import Registry
from layerimp.registry.loader import DISABLE_VARIABLE, PluginHost

ROOT = Path(layerimp.__file__).parents[1]
WHOLE = {method: lambda *_: None for method in ("update", "compute", "plan", "heal", "evaluate")}


def scorer(name: Any, **body: Any) -> type[Scorer]:
    return type("Fake", (Scorer,), {"name": name, **WHOLE, **body})


GOOD = scorer("good")


def good(install: Install) -> EntryPoint:
    return install("good", layerimp_scorers=lambda: [GOOD])


def fail() -> list[type]:
    raise RuntimeError("boom")


def returning(value: Any) -> Callable[[], Any]:
    return lambda: value


HOOKS = "from layerimp import hookimpl\n"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing module": ({"source": "import no_such_module_at_all"}, "ModuleNotFoundError: .*no_such_module_at_all"),
    "raises on import": ({"source": "1 / 0"}, "ZeroDivisionError: division by zero"),
    "exits on import": ({"source": "raise SystemExit(3)"}, "SystemExit"),
    "misspelt hook": (
        {"layerimp_scorer": returning([])},
        "unknown hook 'layerimp_scorer'. Did you mean 'layerimp_scorers'",
    ),
    "strange hook": ({"layerimp_zzz": returning([])}, "unknown hook 'layerimp_zzz'"),
    "wrong argument": ({"layerimp_scorers": lambda model: []}, "PluginValidationError.*model"),
    "no hook": ({"source": "def layerimp_scorers(): return []"}, "holds no hook; mark its functions"),
    "raises in a hook": ({"layerimp_scorers": fail}, "layerimp_scorers: RuntimeError: boom"),
    "raises in another": ({"layerimp_evaluators": fail}, "layerimp_evaluators: RuntimeError: boom"),
    "exits in a hook": ({"source": HOOKS + "@hookimpl\ndef layerimp_pruners(): raise SystemExit"}, "SystemExit"),
    "returns None": ({"layerimp_scorers": returning(None)}, "returns NoneType, not a list of Scorer classes"),
    "returns a class": ({"layerimp_scorers": returning(GOOD)}, "not a list of Scorer classes"),
    "returns an instance": ({"layerimp_scorers": lambda: [GOOD(4)]}, "is no Scorer class"),
    "wrong kind": ({"layerimp_pruners": returning([GOOD])}, "is no Pruner class"),
    "nameless": ({"layerimp_scorers": returning([type("Anon", (Scorer,), WHOLE)])}, "Anon has no name"),
    "empty name": ({"layerimp_scorers": returning([scorer("")])}, "Fake has no name"),
    "name of a wrong type": ({"layerimp_scorers": returning([scorer(5)])}, "Fake has no name"),
    "incomplete": ({"layerimp_scorers": returning([type("Half", (Scorer,), {"name": "half"})])}, "Half lacks compute"),
    "twice the same": ({"layerimp_scorers": returning([scorer("x"), scorer("x")])}, "two scorers are named 'x'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_is_recorded_and_the_rest_works(install: Install, case: str) -> None:
    what, said = BAD[case]
    points = [good(install), install("bad", **what), install("zeta", layerimp_pruners=lambda: [])]
    registry = Registry(PluginHost(points, blocked=()))
    records = {record.name: record for record in registry.plugins.records}
    assert {name: record.status for name, record in records.items()} == {"good": "ok", "bad": "failed", "zeta": "ok"}
    assert (records["bad"].distribution, records["bad"].version) == ("layerimp-bad", "1.2")
    assert not registry.plugins.manager.has_plugin("bad")
    assert registry.names("scorer") == ["good"]
    assert registry.get("scorer", "good") is GOOD
    with pytest.raises(PluginError, match=f"(?s)'bad': its plugin .layerimp-bad 1.2. failed: .*{said}") as caught:
        registry.get("scorer", "bad")
    assert "\n" not in str(caught.value)


def test_a_plugin_that_fails_late_is_out_altogether(install: Install) -> None:
    half = install("half", layerimp_scorers=lambda: [scorer("half")], layerimp_evaluators=fail)
    registry = Registry(PluginHost([good(install), half], blocked=()))
    assert registry.names("scorer") == ["good"]
    with pytest.raises(PluginError, match="boom"):
        registry.get("scorer", "half")


def test_a_name_is_taken_once(install: Install) -> None:
    points = [
        install("same", dist="b", layerimp_scorers=lambda: [scorer("second")]),
        install("same", dist="a", layerimp_scorers=lambda: [scorer("first")]),
        good(install),
    ]
    registry = Registry(PluginHost(points, blocked=()))
    assert registry.names("scorer") == ["first", "good"]
    assert [(r.distribution, r.status) for r in registry.plugins.records if r.name == "same"] == [
        ("a", "ok"),
        ("b", "failed"),
    ]
    (failed,) = [r for r in registry.plugins.records if r.error]
    assert failed.error == "the name 'same' is taken by the plugin of a 1.2"


def test_the_name_of_a_failed_plugin_is_free(install: Install) -> None:
    points = [
        install("same", "1 / 0", dist="a"),
        install("same", dist="b", layerimp_scorers=lambda: [scorer("same")]),
        install("same", dist="c", layerimp_scorers=lambda: [scorer("third")]),
    ]
    registry = Registry(PluginHost(points, blocked=()))
    assert registry.names("scorer") == ["same"]
    assert registry.plugins.records[2].error == "the name 'same' is taken by the plugin of b 1.2"


def test_two_scorers_of_one_name(install: Install) -> None:
    thief = install("thief", layerimp_scorers=lambda: [scorer("other"), scorer("good")])
    registry = Registry(PluginHost([thief, good(install)], blocked=()))
    assert registry.get("scorer", "good") is GOOD
    assert registry.origin("scorer", "good") == "good"
    assert registry.names("scorer") == ["good"]
    (record,) = [r for r in registry.plugins.records if r.error]
    assert (record.name, record.error) == (
        "thief",
        "layerimp_scorers: the scorer name 'good' is taken by the plugin 'good'",
    )


def test_kinds_have_names_of_their_own(install: Install) -> None:
    classes = {"scorer": GOOD, "pruner": type("P", (Pruner,), {"name": "good", **WHOLE})}
    classes["healer"] = type("H", (Healer,), {"name": "good", **WHOLE})
    classes["evaluator"] = type("E", (Evaluator,), {"name": "good", **WHOLE})
    point = install("all", **{f"layerimp_{kind}s": returning([cls]) for kind, cls in classes.items()})
    registry = Registry(PluginHost([point], blocked=()))
    assert not [r for r in registry.plugins.records if r.error]
    assert {kind: registry.get(kind, "good") for kind in classes} == classes
    assert registry.plugins.records[0].hooks == [f"layerimp_{kind}s" for kind in sorted(classes)]


@pytest.mark.parametrize("value", ["bad", "x,bad", " x  bad ", "bad,,x"])
def test_a_disabled_plugin_is_not_imported(install: Install, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(DISABLE_VARIABLE, value)
    point = install("bad", "1 / 0")
    registry = Registry(PluginHost([good(install), point]))
    assert {r.name: (r.status, r.error) for r in registry.plugins.records} == {
        "bad": ("disabled", None),
        "good": ("ok", None),
    }
    assert point.value not in sys.modules
    assert registry.names("scorer") == ["good"]


def test_an_entry_point_without_a_distribution_loads(install: Install) -> None:
    point = EntryPoint("bare", good(install).value, "layerimp")
    (record,) = PluginHost([point], blocked=()).records
    assert (record.status, record.distribution, record.version) == ("ok", "?", "?")


class Tuned(GOOD):
    """A scorer with options."""

    class Config(Options):
        """The options."""

        site: Literal["in", "out"] = Field("in", description="Where.")
        width: int = Field(1, ge=1, description="How wide.")

    name = "tuned"


@pytest.fixture
def tuned(install: Install) -> Registry:
    return Registry(PluginHost([good(install), install("tuned", layerimp_scorers=lambda: [Tuned])], blocked=()))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tunde", "unknown scorer 'tunde'. Did you mean 'tuned'\\? Known: good, tuned."),
        ("zzz", "unknown scorer 'zzz'. Known: good, tuned."),
    ],
)
def test_an_unknown_scorer_has_neighbours(tuned: Registry, name: str, said: str) -> None:
    with pytest.raises(UnknownNameError, match=f"^{said}$"):
        tuned.get("scorer", name)
    with pytest.raises(UnknownNameError, match=f"unknown pruner '{name}'. Known: none."):
        tuned.get("pruner", name)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"wdth": 2}, UnknownNameError, "unknown option 'wdth' of scorer 'tuned'. Did you mean 'width'"),
        ({"width": "two"}, OptionError, "option 'width' of scorer 'tuned': .*integer.*got 'two'. Options: site, width"),
        ({"width": 0}, OptionError, "'width' .*greater than or equal to 1"),
        ({"site": "up"}, OptionError, "'site' .*'in' or 'out'"),
    ],
)
def test_a_wrong_option_is_named(tuned: Registry, values: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        tuned.options("scorer", "tuned", values)


def test_options_are_validated_and_fixed(tuned: Registry) -> None:
    config = tuned.options("scorer", "tuned", {"width": "3"})
    assert (config.site, config.width) == ("in", 3)
    assert Tuned(4).config == Tuned.Config()
    assert Tuned(4, config).config is config
    with pytest.raises(ValueError, match="frozen"):
        config.width = 4
    assert Tuned.summary() == "A scorer with options."
    assert type("Bare", (Component,), {}).summary() == ""


def entry_points(pyproject: Path) -> dict[str, str]:
    return tomllib.loads(pyproject.read_text())["project"]["entry-points"]["layerimp"]


def test_the_wheel_bundles_every_plugin() -> None:
    folders = [entry_points(path) for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    union = {name: value for folder in folders for name, value in folder.items()}
    assert len(union) == sum(map(len, folders)) >= 4
    assert entry_points(ROOT / "pyproject.toml") == union
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {Path(package).stem for package in packages["packages"]} == {"layerimp", *union.values()}
