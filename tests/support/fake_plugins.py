"""Plugins that are installed in memory only."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from layerimp import hookimpl


class FakeDist(Distribution):
    """An installed distribution that exists in memory only."""

    def __init__(self, name: str, version: str, points: dict[str, str]) -> None:
        self._texts = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            "entry_points.txt": "[layerimp]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()),
        }

    def read_text(self, filename: str) -> str | None:
        return self._texts.get(filename)

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


Install = Callable[..., EntryPoint]
"""Makes an entry point for a module that holds given hooks, or a given source."""
Plug = Callable[..., None]
"""Adds entry points to those that are installed."""


def installer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    """Makes an entry point for a module that holds these hooks, or this source."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, source: str | None = None, *, dist: str | None = None, **hooks: Any) -> EntryPoint:
        module = f"fake_{dist or name}_{name}".replace("-", "_")
        monkeypatch.delitem(sys.modules, module, raising=False)
        if source is None:
            made = ModuleType(module)
            vars(made).update({hook: hookimpl(function) for hook, function in hooks.items()})
            monkeypatch.setitem(sys.modules, module, made)
        else:
            (tmp_path / f"{module}.py").write_text(source)
        (point,) = FakeDist(dist or f"layerimp-{name}", "1.2", {name: module}).entry_points
        return point

    return make
