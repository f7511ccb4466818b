"""Finds and loads plugins. A broken plugin never breaks the host.

This loader exists because pluggy's `load_setuptools_entrypoints` lets the ImportError of one plugin escape, silently
skips a second entry point of the same name, and accepts a misspelt hook until it is checked explicitly.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from warnings import warn

import pluggy

from layerimp import hookspecs
from layerimp.errors import LayerimpError, PluginError, PluginWarning, one_line, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Answer = TypeVar("Answer")

DISABLE_VARIABLE = "LAYERIMP_DISABLE_PLUGINS"


@dataclass
class PluginRecord:
    """An entry point, and the result of loading it.

    Attributes:
        name: The name of the entry point.
        distribution: The distribution that it belongs to.
        version: The version of the distribution.
        hooks: The hooks that the plugin has.
        components: The names of its components by kind, without those of variants.
        error: Why the plugin is left out, or None.
        blocked: Whether the user disabled the plugin.
        reported: Whether it was reported that the plugin is left out.
    """

    name: str
    distribution: str
    version: str
    hooks: list[str] = field(default_factory=list)
    components: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None
    blocked: bool = False
    reported: bool = False

    @property
    def source(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}"

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The context in which code of the plugin runs: during its import, and in its hooks.

        Raises:
            PluginError: the code failed, or tried to exit. A `LayerimpError` is passed on as it is.
        """
        try:
            yield
        except (LayerimpError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(one_line(error)) from error

    @property
    def status(self) -> Literal["ok", "failed", "disabled"]:
        """Whether it takes part."""
        return "disabled" if self.blocked else "failed" if self.error else "ok"


class PluginHost:
    """The loaded plugins: a pluggy manager, and a record of each entry point."""

    def __init__(self, points: Iterable[EntryPoint] | None = None, blocked: Iterable[str] | None = None) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []
        if points is None:
            points = installed_points()
        if blocked is None:
            blocked = os.environ.get(DISABLE_VARIABLE, "").replace(",", " ").split()
        blocked = frozenset(blocked)
        for point in sorted(points, key=_order):
            self._load(point, blocked)

    def _load(self, point: EntryPoint, blocked: frozenset[str]) -> None:
        record = PluginRecord(point.name, *(_identity(point.dist) if point.dist else ("?", "?")))
        self.records.append(record)
        if point.name in blocked:
            record.blocked = True
            return
        if self.manager.has_plugin(point.name):
            record.error = f"the name {point.name!r} is taken by the plugin of {self.record(point.name).source}"
            return
        try:
            with record.at_work():
                plugin = point.load()
                self.manager.register(plugin, name=point.name)
            record.hooks = _checked_hooks(point, self.manager.get_hookcallers(plugin) or [])
        except LayerimpError as error:
            record.error = _cause(error)
            self._forget(point.name)

    def _forget(self, name: str) -> None:
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)

    def answers(self, hook: str, check: Callable[[Any], Answer]) -> Iterator[tuple[str, Answer]]:
        """Yield what the plugins return for a hook, by the plugin's name. A plugin that fails is left out.

        Args:
            hook: The name of the hook, which takes no arguments.
            check: Checks what a plugin returns, and fails if that breaks the contract.
        """
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            try:
                with self.record(name).at_work():
                    answer = check(implementation.function())
            except LayerimpError as error:
                self.fail(name, f"{hook}: {_cause(error)}")
            else:
                yield name, answer

    def fail(self, name: str, cause: str) -> None:
        """Record that the plugin `name` broke its contract, and remove the plugin."""
        self._forget(name)
        record = self.record(name)
        record.error, record.components = cause, {}

    def tell_failures(self) -> None:
        """Report once, in one line each, which plugins are left out."""
        for record in self.records:
            if record.error and not record.reported:
                record.reported = True
                warn(
                    f"the plugin {record.name!r} ({record.source}) is left out: {record.error}",
                    PluginWarning,
                    stacklevel=3,
                )

    def record(self, name: str) -> PluginRecord:
        """Return the record of the plugin `name`, not of a plugin that failed because the name was already taken."""
        return max((record for record in self.records if record.name == name), key=lambda record: bool(record.hooks))


def installed_points() -> list[EntryPoint]:
    """The entry points of all plugins that are installed, in the order of loading."""
    return sorted(entry_points(group=hookspecs.PROJECT), key=_order)


def _checked_hooks(point: EntryPoint, callers: Sequence[pluggy.HookCaller]) -> list[str]:
    """Return the names of a plugin's hooks.

    Raises:
        PluginError: there are none, or one does not exist.
    """
    if not callers:
        raise PluginError(f"{point.value} holds no hook; mark its functions with @layerimp.hookimpl")
    known = [name for name in dir(hookspecs) if name.startswith("layerimp_")]
    if unknown := [caller.name for caller in callers if not caller.spec]:
        raise PluginError(str(unknown_name("hook", unknown[0], known)))
    return sorted(caller.name for caller in callers)


def _cause(error: LayerimpError) -> str:
    """Tell in one line why a plugin failed; errors that the plugin itself raised are named with their class."""
    return str(error) if isinstance(error, PluginError) else one_line(error)


def _order(point: EntryPoint) -> tuple[bool, str, str, str]:
    """Return a sort key for loading: plugins that ship with layerimp come first, so that they keep their names."""
    distribution, _ = _identity(point.dist) if point.dist else ("", "")
    return distribution != hookspecs.PROJECT, point.name, point.value, distribution


@lru_cache
def _identity(dist: Distribution) -> tuple[str, str]:
    """Return the name and the version of a distribution, which may have many plugins; each takes parsing a file."""
    return dist.name, dist.version


@cache
def host() -> PluginHost:
    """Return the plugins of this process, which are loaded once."""
    return PluginHost()
