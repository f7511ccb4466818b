"""Finds and loads plugins. One bad plugin never takes the host down.

pluggy's own `load_setuptools_entrypoints` lets one plugin's ImportError escape, skips a second entry point of the
same name in silence and accepts a misspelt hook until somebody asks; hence this loader.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from time import perf_counter
from typing import TYPE_CHECKING
from warnings import warn

import pluggy

from layerimp import hookspecs
from layerimp.errors import LayerimpError, PluginError, PluginWarning, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DISABLE_VARIABLE = "LAYERIMP_DISABLE_PLUGINS"
SLOW = 2.0
"""Seconds that a plugin may take to import before a word is said."""
SHARED = ("layerimp.stats", "layerimp.sweep")
"""What most scorers import, with torch behind it: its time is nobody's fault."""


@dataclass
class PluginRecord:
    """One entry point, and how loading it went.

    Attributes:
        name: The entry point's name.
        distribution: What it was installed with.
        version: That distribution's version.
        hooks: The hooks that it has.
        error: Why it is left out, or None.
        blocked: Whether the user disabled it.
        seconds: How long its own imports took.
        told: Whether a line has said that the plugin is left out.
    """

    name: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    error: str | None = None
    blocked: bool = False
    seconds: float = 0.0
    told: bool = False

    @property
    def source(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let code of the plugin run in here: while it is imported, and in its hooks.

        If the code changes the state of the process, the state is restored.

        Raises:
            PluginError: the code failed, or tried to exit. A `LayerimpError` is passed on as it is.
        """
        from layerimp.registry.process_state import leaving_process  # which needs torch

        with leaving_process(f"the plugin {self.name!r} ({self.source})"):
            try:
                yield
            except (LayerimpError, KeyboardInterrupt):
                raise
            except BaseException as error:
                raise PluginError(one_line(error)) from error

    @property
    def status(self) -> str:
        """`ok`, `failed` or `disabled`."""
        return "disabled" if self.blocked else "failed" if self.error else "ok"


class PluginHost:
    """The loaded plugins: a pluggy manager, and a record of each entry point."""

    def __init__(self, points: Iterable[EntryPoint] | None = None, blocked: Iterable[str] | None = None) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []
        if points is None:
            points = entry_points(group=hookspecs.PROJECT)
        if blocked is None:
            blocked = os.environ.get(DISABLE_VARIABLE, "").replace(",", " ").split()
        blocked = frozenset(blocked)
        for module in SHARED:
            import_module(module)
        for point in sorted(points, key=_order):
            self._load(point, blocked)

    def _load(self, point: EntryPoint, blocked: frozenset[str]) -> None:
        dist = point.dist
        record = PluginRecord(point.name, dist.name if dist else "?", dist.version if dist else "?")
        self.records.append(record)
        if point.name in blocked:
            record.blocked = True
            return
        if self.manager.has_plugin(point.name):
            other = next(r for r in self.records if r.name == point.name and not r.error)
            record.error = f"the name {point.name!r} is taken by the plugin of {other.source}"
            return
        start = perf_counter()
        try:
            with record.at_work():
                plugin = point.load()
                record.seconds = perf_counter() - start
                self.manager.register(plugin, name=point.name)
        except LayerimpError as error:
            record.error = cause_of(error)
            self._forget(point.name)
            return
        callers = self.manager.get_hookcallers(plugin) or []
        try:
            self.manager.check_pending()
        except pluggy.PluginValidationError:
            known = [name for name in dir(hookspecs) if name.startswith("layerimp_")]
            wrong = next(caller.name for caller in callers if not caller.spec)
            near = get_close_matches(wrong, known, n=1)
            record.error = f"unknown hook {wrong!r}" + (f", did you mean {near[0]!r}?" if near else "")
            self._forget(point.name)
            return
        record.hooks = sorted(caller.name for caller in callers)
        if record.seconds > SLOW:
            told = f"the plugin {point.name!r} ({record.source}) took {record.seconds:.1f} s to import"
            ways = (
                f"let it import what is slow inside its functions, or keep it out with {DISABLE_VARIABLE}={point.name}"
            )
            warn(f"{told}; {ways}", PluginWarning, stacklevel=2)
        if not record.hooks:
            record.error = f"{point.value} holds no hook; mark its functions with @layerimp.hookimpl"
            self._forget(point.name)

    def _forget(self, name: str) -> None:
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)

    def fail(self, name: str, cause: str) -> None:
        """Record that the plugin `name` broke its contract, and take it out."""
        self._forget(name)
        self.record(name).error = cause

    def tell_failures(self) -> None:
        """Say in one line each which plugins are left out, once."""
        for record in self.records:
            if record.error and not record.told:
                record.told = True
                warn(
                    f"the plugin {record.name!r} ({record.source}) is left out: {record.error}",
                    PluginWarning,
                    stacklevel=3,
                )

    def record(self, name: str) -> PluginRecord:
        """The record of the plugin that has the name `name`; others may have wanted it."""
        return max((record for record in self.records if record.name == name), key=lambda record: bool(record.hooks))


def cause_of(error: LayerimpError) -> str:
    """Why a plugin failed, in one line; what it raises by itself goes with its kind."""
    return str(error) if isinstance(error, PluginError) else one_line(error)


def _order(point: EntryPoint) -> tuple[bool, str, str, str]:
    """The order of loading: plugins that come with layerimp first, which keep their names; then by name."""
    distribution = point.dist.name if point.dist else ""
    return distribution != hookspecs.PROJECT, point.name, point.value, distribution


@cache
def host() -> PluginHost:
    """The plugins of this process, loaded once."""
    return PluginHost()
