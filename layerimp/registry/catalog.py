"""The registry of scorers, pruners, healers and evaluators by name. It detects clashes and suggests similar names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from layerimp.errors import (
    LayerimpError,
    OptionError,
    PluginError,
    UnknownNameError,
    first_problem,
    listing,
    unknown_name,
)
from layerimp.evaluator import Evaluator
from layerimp.healer import Healer
from layerimp.pruner import Pruner
from layerimp.registry.loader import DISABLE_VARIABLE, PluginHost, cause_of, host
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


class Registry:
    """The components of every loaded plugin, by kind and name."""

    def __init__(self, plugins: PluginHost) -> None:
        self.plugins = plugins
        self._classes: dict[Kind, dict[str, type[Component]]] = {kind: {} for kind in _CONTRACTS}
        self._origin: dict[tuple[Kind, str], str] = {}
        self._presets: dict[tuple[Kind, str], Mapping[str, Any]] = {}
        for kind, contract in _CONTRACTS.items():
            for implementation in getattr(plugins.manager.hook, f"layerimp_{kind}s").get_hookimpls():
                plugin = implementation.plugin_name
                try:
                    with plugins.record(plugin).at_work():
                        classes = self._checked(kind, contract, implementation.function())
                except LayerimpError as error:
                    plugins.fail(plugin, f"layerimp_{kind}s: {cause_of(error)}")
                    self._forget(plugin)
                    continue
                self._classes[kind] |= classes
                self._origin |= {(kind, name): plugin for name in classes}
                self._presets |= {
                    (kind, name): preset for cls in classes.values() for name, preset in _own_variants(cls).items()
                }

    def _checked(self, kind: Kind, contract: type[Component], classes: object) -> dict[str, type[Component]]:
        checked: dict[str, type[Component]] = {}
        if not isinstance(classes, list | tuple):
            raise PluginError(f"returns {type(classes).__name__}, not a list of {contract.__name__} classes")
        for cls in classes:
            if not (isinstance(cls, type) and issubclass(cls, contract)):
                raise PluginError(f"{cls!r} is no {contract.__name__} class")
            if fault := cls.fault():
                raise PluginError(fault)
            for name in (cls.name, *_own_variants(cls)):
                if name in checked:
                    raise PluginError(f"two {kind}s are named {name!r}")
                if name in self._classes[kind]:
                    raise PluginError(f"the {kind} name {name!r} is taken by the plugin {self._origin[kind, name]!r}")
                checked[name] = cls
            for name, preset in _own_variants(cls).items():
                _configured(cls, preset, f"{kind} {name!r}")
        return checked

    def _forget(self, plugin: str) -> None:
        """Remove the components that a plugin gave before it failed."""
        for kind, name in [key for key, origin in self._origin.items() if origin == plugin]:
            del self._classes[kind][name], self._origin[kind, name]
            self._presets.pop((kind, name), None)

    def names(self, kind: Kind) -> list[str]:
        """Return the names of all components of a kind, sorted; those of variants are in `summaries`."""
        return sorted(name for name in self._classes[kind] if (kind, name) not in self._presets)

    def summaries(self, kind: Kind) -> dict[str, str]:
        """Return every name of a kind that users can type, sorted, with what it means in one line."""
        return {name: self._summary(kind, name) for name in sorted(self._classes[kind])}

    def variants(self, kind: Kind, name: str) -> dict[str, Mapping[str, Any]]:
        """Return the variants of a component, each with the options that it presets; none of a variant."""
        of = None if (kind, name) in self._presets else self._classes[kind][name]
        own = {variant: preset for (k, variant), preset in self._presets.items() if k == kind}
        return {variant: preset for variant, preset in own.items() if self._classes[kind][variant] is of}

    def _summary(self, kind: Kind, name: str) -> str:
        cls, preset = self._classes[kind][name], self._presets.get((kind, name))
        return cls.summary() if preset is None else f"{cls.name} with {settings(preset)}"

    def origin(self, kind: Kind, name: str) -> str:
        """Return the name of the plugin that a component comes from."""
        return self._origin[kind, name]

    def components_of(self, plugin: str) -> dict[str, list[str]]:
        """Return the names of a plugin's components by kind; kinds of which it has none, and variants, are left out."""
        names: dict[str, list[str]] = {}
        for (kind, name), origin in sorted(self._origin.items()):
            if origin == plugin and (kind, name) not in self._presets:
                names.setdefault(kind, []).append(name)
        return names

    def source(self, cls: type[Component]) -> str:
        """Return the distribution of a class and its version, or its module if no plugin registered the class."""
        for (kind, name), plugin in self._origin.items():
            if self._classes[kind].get(name) is cls:
                return self.plugins.record(plugin).source
        return f"of the module {cls.__module__}"

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
        classes = self._classes[kind]
        if name in classes:
            return classes[name]
        for record in self.plugins.records:
            source = f"{kind} {name!r}: its plugin ({record.source})"
            if record.name == name and record.blocked:
                raise PluginError(f"{source} is disabled by {DISABLE_VARIABLE}")
            if record.name == name and record.error:
                raise PluginError(f"{source} failed: {record.error}")
        error = unknown_name(kind, name, classes, otherwise=otherwise)
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
        preset = self._presets.get((kind, name), {})
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
