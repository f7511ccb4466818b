"""Names the plugin whose component breaks its contract, so that the rest can go on without it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from layerimp.errors import LayerimpError, NonFiniteError, PluginError, one_line
from layerimp.registry.catalog import registry

if TYPE_CHECKING:
    from layerimp.component import Component


def named(kind: str, label: str, cls: type[Component]) -> str:
    """What a component is called in a line for users: with the distribution that it comes from."""
    return f"{kind} {label!r} ({registry().source(cls)})"


@contextmanager
def attributing(kind: str, label: str, cls: type[Component], where: str = "") -> Iterator[None]:
    """Name a component, and the distribution that it comes from, in the error of what it does in here.

    Args:
        kind: Scorer, pruner, healer or evaluator.
        label: What the run calls it.
        cls: Its class.
        where: At which point of the work, such as `at block 3, batch 0`.

    Raises:
        PluginError: it failed; names it. A refusal, any other `LayerimpError`, is passed on as it is.
    """
    try:
        yield
    except (PluginError, NonFiniteError) as error:
        if error.names_plugin:
            raise
        told = type(error)(f"{named(kind, label, cls)}: {error}")
        told.names_plugin = True
        raise told from error
    except (LayerimpError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        how = f"failed{where and ' '}{where}: {one_line(error)}{_line_of(cls, error)}"
        broken = PluginError(f"{named(kind, label, cls)} {how}")
        broken.names_plugin = True
        raise broken from error


def _line_of(cls: type[Component], error: Exception) -> str:
    """The last line of a component's own file that an error came through."""
    try:
        file = inspect.getfile(cls)
    except (OSError, TypeError):
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}, line {lines[-1]})" if lines else ""
