"""Names the plugin whose component breaks its contract, so that the rest can go on without it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerimp.errors import LayerimpError, NonFiniteError, PluginError, one_line
from layerimp.registry.catalog import Kind, registry

if TYPE_CHECKING:
    from layerimp.component import Component


def named(kind: str, label: str, cls: type[Component]) -> str:
    """Name a component for users, together with the distribution that it comes from."""
    return f"{kind} {label!r} ({registry().source(cls)})"


@contextmanager
def attributing(kind: str, label: str, cls: type[Component], where: str = "") -> Iterator[None]:
    """If a component fails inside this context, name the component and its distribution in the error.

    Every exception counts as the component's fault, including an exit, except an interrupt by the user.

    Args:
        kind: Scorer, pruner, healer or evaluator.
        label: The component's label in the run.
        cls: The component's class.
        where: The point of the work, such as `at block 3, batch 0`.

    Raises:
        PluginError: the component failed; the text names it. Any other `LayerimpError` is a refusal, and is passed on
            as it is.
    """
    try:
        yield
    except (PluginError, NonFiniteError) as error:
        if error.names_plugin:
            raise
        attributed = type(error)(f"{named(kind, label, cls)}: {error}")
        attributed.names_plugin = True
        raise attributed from error
    except (LayerimpError, torch.OutOfMemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:
        how = f"failed{where and ' '}{where}: {one_line(error)}{_line_of(cls, error)}"
        broken = PluginError(f"{named(kind, label, cls)} {how}")
        broken.names_plugin = True
        raise broken from error


def create(kind: Kind, name: str, options: Mapping[str, Any], *arguments: Any, label: str = "") -> Component:
    """Make a component with options, as by `Registry.create`. If that fails, the error names the component.

    Args:
        kind: Scorer, pruner, healer or evaluator.
        name: The registered name.
        options: The component's options.
        arguments: The arguments that the class takes before the options.
        label: The component's label in the run; by default its name.

    Raises:
        UnknownNameError: the component, or one of the options, does not exist.
        OptionError: an option has a value of the wrong type.
        PluginError: a plugin of that name failed to load, or the component cannot be made.
    """
    with attributing(kind, label or name, registry().get(kind, name)):
        return registry().create(kind, name, options, *arguments)


def _line_of(cls: type[Component], error: BaseException) -> str:
    """Return the last line in a component's own file that an error passed through."""
    try:
        file = inspect.getfile(cls)
    except (OSError, TypeError):
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}, line {lines[-1]})" if lines else ""
