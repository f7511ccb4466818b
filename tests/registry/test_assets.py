"""Assets of plugins are found by name; a plugin whose files are missing fails alone."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

import layerimp
from layerimp import hookimpl
from layerimp.assets import Assets
from layerimp.registry.assets import assets, collected, located
from layerimp.registry.loader import PluginHost


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch):
    """Makes a plugin that ships `given`, or raises it; gives its entry point."""

    def made(name: str, given: object) -> EntryPoint:
        @hookimpl
        def layerimp_assets() -> object:
            if isinstance(given, Exception):
                raise given
            return given

        module = ModuleType(name)
        module.layerimp_assets = layerimp_assets  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        return EntryPoint(name, name, "layerimp")

    return made


def test_the_assets_of_all_plugins_are_joined(plugin, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    host = PluginHost(
        [plugin("a", Assets(models={"m": first}, tasks=(first,))), plugin("b", Assets(texts={"t": second}))], ()
    )
    assert collected(host) == Assets({"m": first}, {"t": second}, (first,))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "returns NoneType, not Assets"),
        (Assets(texts={"t": Path("/no/such/file")}), "/no/such/file does not exist"),
        (RuntimeError("a\nb"), "RuntimeError: a b"),
        (Assets(models={"m": Path(__file__)}), "the model name 'm' is taken by another plugin"),
    ],
)
def test_a_broken_plugin_fails_alone(plugin, given: object, said: str) -> None:
    host = PluginHost([plugin("a", Assets(models={"m": Path(__file__)})), plugin("b", given)], ())
    assert collected(host) == Assets(models={"m": Path(__file__)})
    good, bad = host.records
    assert (good.status, bad.status) == ("ok", "failed")
    assert bad.error == f"layerimp_assets: {said}"


def test_a_shipped_name_wins_and_any_other_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "starter").mkdir()
    monkeypatch.chdir(tmp_path)
    assert located("models", "starter") == assets().models["starter"]
    assert located("models", "./starter") == "./starter"
    assert located("texts", "some/data-set") == "some/data-set"
    with pytest.raises(layerimp.errors.ModelError, match=r"'./starter' is empty"):
        layerimp.load("./starter")
