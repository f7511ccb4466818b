"""The names that shells complete are the registry's, and are found anew when anything was installed or edited."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fake_plugins import Install

from layerimp.cache.directory import cache_directory
from layerimp.registry import names
from layerimp.registry.catalog import registry
from layerimp.registry.loader import DISABLE_VARIABLE
from layerimp.registry.names import KINDS, installed_names

SOURCE = """
from layerimp import Pruner, hookimpl

class Mine(Pruner):
    \"\"\"Removes what I say.\"\"\"

    name = "mine"

    def plan(self, scoring, budget):
        raise NotImplementedError

@hookimpl
def layerimp_pruners():
    return [Mine]
"""


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever the names are not taken from the file."""
    calls: list[str] = []
    real = names._loaded_names

    def counted() -> names.Names:
        calls.append("loaded")
        return real()

    monkeypatch.setattr(names, "_loaded_names", counted)
    return calls


def test_names_are_the_registrys() -> None:
    known = installed_names()
    for kind in KINDS:
        assert known[kind] == registry().summaries(kind)
        assert (
            known[kind].items()
            >= {name: registry().get(kind, name).summary() for name in registry().names(kind)}.items()
        )
    assert known["model"].keys() == {"starter"}
    assert known["text"].keys() == {"prose", "starter"}
    assert "starter_qa" in known["task"]


def test_names_are_found_once(loads: list[str]) -> None:
    assert installed_names() == installed_names()
    assert loads == ["loaded"]


def test_an_installation_and_an_edit_are_seen(
    plugged: Callable[..., None], install: Install, tmp_path: Path, loads: list[str]
) -> None:
    assert "mine" not in installed_names()["pruner"]
    point = install("mine", SOURCE)
    plugged(point)
    assert installed_names()["pruner"]["mine"] == "Removes what I say."
    installed_names()
    assert len(loads) == 2
    (file,) = tmp_path.glob("fake_*.py")
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    installed_names()
    assert len(loads) == 3


def test_a_package_is_looked_through(tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    point = install("mine", SOURCE)
    package = tmp_path / "fake_mine_package"
    (package / "inner").mkdir(parents=True)
    for file in ("__init__.py", "inner/__init__.py", "inner/deep.py", "beside.py"):
        (package / file).touch()
    whole = type(point)(name="mine", value="fake_mine_package", group="layerimp")
    inner = type(point)(name="mine", value="fake_mine_package.inner", group="layerimp")
    assert {package / "inner" / "deep.py", package / "beside.py"} <= set(names._files(whole))
    assert package / "inner" / "deep.py" in set(names._files(inner))
    assert package / "beside.py" not in set(names._files(inner))


def test_what_is_disabled_is_not_offered(
    plugged: Callable[..., None], monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    assert "cim" in installed_names()["scorer"]
    plugged()
    monkeypatch.setenv(DISABLE_VARIABLE, "cim")
    assert "cim" not in installed_names()["scorer"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"fingerprint": 1, "names": 1}'])
def test_a_broken_file_is_no_obstacle(content: str, loads: list[str]) -> None:
    known = installed_names()
    (file,) = cache_directory("names").iterdir()
    file.write_text(content)
    assert installed_names() == installed_names() == known
    assert len(loads) == 2


def test_names_that_cannot_be_kept_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAYERIMP_CACHE", str(tmp_path / "file"))
    assert installed_names() == installed_names()
    assert len(loads) == 2
