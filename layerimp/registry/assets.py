"""The models, texts and tasks that plugins ship, and where they are."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Literal

from layerimp._paths import expanded
from layerimp.assets import Assets
from layerimp.errors import PluginError
from layerimp.registry.loader import PluginHost, host


def collected(plugins: PluginHost) -> Assets:
    """Collect the assets of all plugins. A plugin fails if its files are missing or its names are already taken."""
    models: dict[str, Path] = {}
    texts: dict[str, Path] = {}
    tasks: tuple[Path, ...] = ()
    for _plugin, own in plugins.answers("layerimp_assets", partial(_checked, models, texts)):
        models |= own.models
        texts |= own.texts
        tasks += own.tasks
    return Assets(models, texts, tasks)


def _checked(models: Mapping[str, Path], texts: Mapping[str, Path], returned: object) -> Assets:
    if not isinstance(returned, Assets):
        raise PluginError(f"returns {type(returned).__name__}, not Assets")
    for kind, own, taken in (("model", returned.models, models), ("text", returned.texts, texts)):
        if both := sorted(own.keys() & taken.keys()):
            raise PluginError(f"the {kind} name {both[0]!r} is taken by another plugin")
    for path in (*returned.models.values(), *returned.texts.values(), *returned.tasks):
        if not path.exists():
            raise PluginError(f"{path} does not exist")
    return returned


@cache
def assets() -> Assets:
    """Return the assets of this process's plugins."""
    shipped = collected(host())
    host().tell_failures()
    return shipped


def located(kind: Literal["models", "texts"], name: str | Path) -> str | Path:
    """Return the path of the model or text that a plugin ships under `name`; `name` itself if no plugin does."""
    shipped: Mapping[str, Path] = getattr(assets(), kind)
    return shipped.get(str(name), name)


def absolute(path: str | Path, shipped: Container[str] = ()) -> str:
    """Return an absolute path; anything that is not a path, such as a shipped name or a model id, is unchanged."""
    here = expanded(path)
    return str(here.absolute()) if str(path) not in shipped and here.exists() else str(path)
