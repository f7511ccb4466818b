"""The one exception tree of layerimp.

The CLI prints an error's one line and exits with its `exit_code`.

    LayerimpError
    ├── InputError            what the user gave is wrong
    │   ├── UnknownNameError  a name that nothing is registered under
    │   ├── OptionError       an option that does not exist, or a value of the wrong type
    │   ├── CalibrationError  text that cannot be read, or is too little
    │   ├── ModelError        a model that cannot be loaded or understood
    │   │   └── PredictionError   a model whose predictions cannot be read
    │   ├── TaskError         an evaluation task that cannot be found, read or allowed
    │   └── OutputError       an output directory that cannot be written
    ├── PluginError           a plugin broke its contract
    ├── SurgeryError          blocks that cannot be removed exactly
    ├── CheckpointError       a saved checkpoint that is not what was in memory
    └── NonFiniteError        a NaN or an infinity in weights, activations, logits or scores
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import ValidationError


class LayerimpError(Exception):
    """Base of every error that layerimp raises on purpose. Its text is one line, fit for a user.

    Attributes:
        exit_code: What a command ends with.
        names_plugin: Whether the text names the plugin whose fault it is.
    """

    exit_code: ClassVar[int] = 2
    names_plugin: bool = False


class InputError(LayerimpError):
    """What the user gave is wrong."""


class UnknownNameError(InputError):
    """A name that nothing is registered under."""


class OptionError(InputError):
    """An option that does not exist, or a value of the wrong type."""


class CalibrationError(InputError):
    """Calibration text that cannot be read, or is too little."""


class ModelError(InputError):
    """A model that cannot be loaded or understood."""


class PredictionError(ModelError):
    """A model whose predictions cannot be read: it makes none, or not from its blocks alone."""


class TaskError(InputError):
    """An evaluation task that cannot be found, read or allowed."""


class OutputError(InputError):
    """An output directory that cannot be written."""


class PluginError(LayerimpError):
    """A plugin that broke its contract; names the plugin."""


class SurgeryError(LayerimpError):
    """Blocks that cannot be removed exactly; the model is as it was."""


class CheckpointError(LayerimpError):
    """A saved checkpoint that does not load back as what was in memory."""

    exit_code = 1


class NonFiniteError(LayerimpError):
    """A NaN or an infinity in weights, activations, logits or scores; names where."""


class PluginWarning(UserWarning):
    """A plugin that is slow, or was left out, while everything else goes on; names it, in one line."""


_LISTED, _NEAREST = 20, 10
"""How many names are listed, and how many where there are more: those that are nearest to what was asked for."""


def listing(names: Iterable[str], *, limit: int = _LISTED) -> str:
    """`names`, sorted and joined, cut after `limit`."""
    ordered = sorted(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return (", ".join(ordered[:limit]) or "none") + more


def unknown_name(kind: str, name: str, known: Iterable[str], *, of: str = "") -> UnknownNameError:
    """An error that says what was probably meant, and what exists: all of it, or what is nearest where that is much."""
    known = sorted(known)
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    owner = f" of {of}" if of else ""
    exists = f"Known: {listing(known)}"
    if len(known) > _LISTED:
        exists = f"The nearest of {len(known):,}: {', '.join(get_close_matches(name, known, n=_NEAREST, cutoff=0))}"
    return UnknownNameError(f"unknown {kind} {name!r}{owner}.{hint} {exists}.")


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong in a document, and where it stands there, in one line."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))} {problem['msg'].removeprefix('Value error, ')}".strip()


def one_line(error: BaseException) -> str:
    """The kind and the text of an error, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def cause(error: BaseException) -> str:
    """What an error says in its first line, and in the next one where a colon at the end announces that.

    A `KeyError` says nothing but the key, and some errors nothing at all: their kind goes before it.
    """
    said = []
    for line in filter(None, map(str.strip, str(error).splitlines())):
        said.append(line)
        if not line.endswith(":"):
            break
    return " ".join(said) if said and not isinstance(error, KeyError) else one_line(error).rstrip(": ")
