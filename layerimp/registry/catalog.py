"""The registry of scorers, pruners, healers and evaluators by name. It detects clashes and suggests similar names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from layerimp.errors import OptionError, PluginError, UnknownNameError, first_problem, listing, unknown_name
from layerimp.evaluator import Evaluator
from layerimp.healer import Healer
from layerimp.pruner import Pruner
from layerimp.registry.loader import DISABLE_VARIABLE, PluginHost, host
from layerimp.scorer import Scorer

if TYPE_CHECKING:
    from pathlib import Path

    from layerimp.component import Component

Kind = Literal["scorer", "pruner", "healer", "evaluator"]

_CONTRACTS: dict[Kind, type[Component]] = {
    "scorer": Scorer,
    "pruner": Pruner,
    "healer": Healer,
    "evaluator": Evaluator,
}
"""The base class of each kind."""


@dataclass(frozen=True)
class _Entry:
    """What a name stands for: a class of a plugin, and the options that the name presets if it is that of a variant."""

    cls: type[Component]
    plugin: str
    preset: Mapping[str, Any] | None = None


class Registry:
    """The components of every loaded plugin, by kind and name."""

    def __init__(self, plugins: PluginHost) -> None:
        self.plugins = plugins
        self._entries: dict[Kind, dict[str, _Entry]] = {kind: {} for kind in _CONTRACTS}
        for kind, entries in self._entries.items():
            for plugin, classes in plugins.answers(f"layerimp_{kind}s", partial(self._checked, kind)):
                if classes:
                    plugins.record(plugin).components[kind] = sorted(cls.name for cls in classes)
                for cls in classes:
                    presets: dict[str, Mapping[str, Any] | None] = {cls.name: None, **_own_variants(cls)}
                    entries |= {name: _Entry(cls, plugin, preset) for name, preset in presets.items()}
        for kind, entries in self._entries.items():  # a plugin that fails late leaves nothing
            self._entries[kind] = {n: entry for n, entry in entries.items() if not plugins.record(entry.plugin).error}

    def _checked(self, kind: Kind, classes: object) -> list[type[Component]]:
        contract, taken = _CONTRACTS[kind], self._entries[kind]
        if not isinstance(classes, list | tuple):
            raise PluginError(f"returns {type(classes).__name__}, not a list of {contract.__name__} classes")
        names: set[str] = set()
        for cls in classes:
            if not (isinstance(cls, type) and issubclass(cls, contract)):
                raise PluginError(f"{cls!r} is no {contract.__name__} class")
            if fault := cls.fault():
                raise PluginError(fault)
            for name in (cls.name, *_own_variants(cls)):
                if name in names:
                    raise PluginError(f"two {kind}s are named {name!r}")
                if name in taken:
                    raise PluginError(f"the {kind} name {name!r} is taken by the plugin {taken[name].plugin!r}")
                names.add(name)
            for name, preset in _own_variants(cls).items():
                _configured(cls, preset, f"{kind} {name!r}")
        return list(classes)

    def names(self, kind: Kind) -> list[str]:
        """Return the names of all components of a kind, sorted; those of variants are in `summaries`."""
        return sorted(name for name, entry in self._entries[kind].items() if entry.preset is None)

    def summaries(self, kind: Kind) -> dict[str, str]:
        """Return every name of a kind that users can type, sorted, with what it means in one line."""
        entries = sorted(self._entries[kind].items())
        return {
            name: entry.cls.summary() if entry.preset is None else f"{entry.cls.name} with {settings(entry.preset)}"
            for name, entry in entries
        }

    def variants(self, kind: Kind, name: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the variants of a component, each with the options that it presets; none of a variant."""
        entry = self._entries[kind][name]
        return _own_variants(entry.cls) if entry.preset is None else {}

    def origin(self, kind: Kind, name: str) -> str:
        """Return the name of the plugin that a component comes from."""
        return self._entries[kind][name].plugin

    def source(self, cls: type[Component]) -> str:
        """Return the distribution of a class and its version, or its module if no plugin registered the class."""
        every = (entry for entries in self._entries.values() for entry in entries.values())
        plugin = next((entry.plugin for entry in every if entry.cls is cls), None)
        return f"of the module {cls.__module__}" if plugin is None else self.plugins.record(plugin).source

    def get(self, kind: Kind, name: str, *, otherwise: str = "") -> type[Component]:
        """Return the class registered under `name`, which may be the name of a variant.

        Args:
            kind: The kind of the component.
            name: The registered name.
            otherwise: What else the user may have meant by an unknown name; see `unknown_name`.

        Raises:
            OptionError: the name is not text.
            UnknownNameError: no component has this name; the error lists the names, and suggests a similar one.
            PluginError: a plugin of that name exists but failed to load; the error says why.
        """
        if not isinstance(name, str):
            raise OptionError(f"a {kind} is given by its name, or as a configured {kind.capitalize()}, got {name!r}")
        entries = self._entries[kind]
        if name in entries:
            return entries[name].cls
        for record in self.plugins.records:
            source = f"{kind} {name!r}: its plugin ({record.source})"
            if record.name == name and record.blocked:
                raise PluginError(f"{source} is disabled by {DISABLE_VARIABLE}")
            if record.name == name and record.error:
                raise PluginError(f"{source} failed: {record.error}")
        error = unknown_name(kind, name, entries, otherwise=otherwise)
        if failed := [f"{record.name} ({record.source})" for record in self.plugins.records if record.error]:
            error = UnknownNameError(f"{error} Plugins that failed: {listing(failed)}; layerimp plugins says why.")
        raise error

    def tasks(self, containing: str = "", task_path: Path | None = None) -> dict[str, str]:
        """The tasks that the evaluators know, by name, each with what it is; see `Evaluator.known_tasks`.

        Args:
            containing: A part of the name; without one, only tasks that plugins ship.
            task_path: A directory with further task YAMLs.

        Raises:
            TaskError: `task_path` is no directory.
        """
        known: dict[str, str] = {}
        for evaluator in self.evaluators(task_path=task_path):
            known |= evaluator.known_tasks(containing)
        return known

    def evaluators(self, **settings: Any) -> Iterator[Evaluator]:
        """Make every evaluator, each with those of the settings that are options of it."""
        for name in self.names("evaluator"):
            fields = self.get("evaluator", name).Config.model_fields
            options = {option: value for option, value in settings.items() if option in fields}
            evaluator = self.create("evaluator", name, options)
            assert isinstance(evaluator, Evaluator)
            yield evaluator

    def create(self, kind: Kind, name: str, options: Mapping[str, Any], *arguments: Any) -> Component:
        """Make a component with options; a scorer takes the number of blocks before the options.

        Raises:
            UnknownNameError: there is no such component or option.
            OptionError: an option has a value of the wrong type.
            PluginError: a plugin of that name exists but failed to load.
        """
        cls: Any = self.get(kind, name)
        component: Component = cls(*arguments, self.options(kind, name, options))
        return component

    def options(self, kind: Kind, name: str, values: Mapping[str, Any]) -> Any:
        """Return the validated options of a component.

        Raises:
            UnknownNameError: an option does not exist.
            OptionError: an option has a value of the wrong type.
        """
        cls = self.get(kind, name)
        preset = self._entries[kind][name].preset or {}
        return _configured(cls, {**preset, **values}, f"{kind} {name!r}")


def _own_variants(cls: type[Component]) -> Mapping[str, Mapping[str, Any]]:
    """Return the variants that a class declares itself; those that it inherits belong to the other class."""
    own: Mapping[str, Mapping[str, Any]] = vars(cls).get("variants", {})
    return own


def _configured(cls: type[Component], values: Mapping[str, Any], owner: str) -> Any:
    """Return the validated options of a class; `owner` names the component in an error."""
    try:
        return cls.Config(**values)
    except ValidationError as error:
        problem = first_problem(error)
        option = problem.place
        if problem.kind == "extra_forbidden":
            raise unknown_name("option", option, cls.Config.model_fields, of=owner) from None
        where = f"option {option!r} of {owner}" if option else f"options of {owner}"
        got = f", got {problem.value!r}" if option else ""
        raise OptionError(f"{where}: {problem.message}{got}. Options: {listing(cls.Config.model_fields)}.") from None


def settings(options: Mapping[str, Any]) -> str:
    """Show options as users write them."""
    return ", ".join(f"{name}={value}" for name, value in options.items())


@cache
def registry() -> Registry:
    """Return the components of this process's plugins. Each plugin that is left out is reported once, in one line."""
    components = Registry(host())
    components.plugins.tell_failures()
    return components
