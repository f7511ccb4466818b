"""The hash of a component's source."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from layerimp.component import Component
from layerimp.registry.source_code import code_of

SOURCE = """
from layerimp.component import Component
class Mine(Component):
    name = "mine"
"""


def test_the_code_of_a_namespace_package_is_that_of_the_package_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("one", "other"):
        (tmp_path / "shared_space" / name).mkdir(parents=True)
        (tmp_path / "shared_space" / name / "__init__.py").write_text(SOURCE)
    component = import_module("shared_space.one").Mine()
    for name in ("shared_space", "shared_space.one"):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    before = code_of(component)
    (tmp_path / "shared_space" / "other" / "__init__.py").write_text(SOURCE + "# edited\n")
    assert code_of(component) == before
    (tmp_path / "shared_space" / "one" / "more.py").write_text("# a part of the package\n")
    assert code_of(component) != before


def test_a_class_without_a_file_is_never_the_same() -> None:
    typed = type("Typed", (Component,), {"name": "typed", "__module__": "no_module"})
    assert code_of(typed) != code_of(typed)
