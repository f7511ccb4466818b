"""The one exception tree of layerimp.

The CLI prints an error's one line and exits with its `exit_code`.

    LayerimpError
    ├── InputError            what the user gave is wrong
    │   ├── UnknownNameError  a name that does not exist
    │   ├── OptionError       an option that does not exist, or a value of the wrong type
    │   ├── CalibrationError  text that cannot be read, or is too short
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
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import ValidationError


class LayerimpError(Exception):
    """Base of every error that layerimp raises deliberately. The message is one line for users.

    Attributes:
        exit_code: The exit code of a command that ends with this error.
        names_plugin: Whether the message names the plugin at fault.
    """

    exit_code: ClassVar[int] = 2
    names_plugin: bool = False


class InputError(LayerimpError):
    """Wrong input by the user."""


class UnknownNameError(InputError):
    """A name that does not exist."""


class OptionError(InputError):
    """An option that does not exist, or a value of the wrong type."""


class CalibrationError(InputError):
    """Calibration text that cannot be read, or is too short."""


class ModelError(InputError):
    """A model that cannot be loaded or understood."""


class PredictionError(ModelError):
    """A model whose predictions cannot be read: it makes none, or they depend on more than its blocks."""


class TaskError(InputError):
    """An evaluation task that cannot be found, read or allowed."""


class OutputError(InputError):
    """An output directory that cannot be written."""


class PluginError(LayerimpError):
    """A plugin that broke its contract. The message names the plugin."""


class SurgeryError(LayerimpError):
    """Blocks that cannot be removed exactly. The model is unchanged."""


class CheckpointError(LayerimpError):
    """A saved checkpoint that does not load back as the model in memory."""

    exit_code = 1


class NonFiniteError(LayerimpError):
    """A NaN or an infinity in weights, activations, logits or scores. The message says where."""


class PluginWarning(UserWarning):
    """A plugin that is slow, or was left out, while everything else goes on. The message names it, in one line."""


_LISTED, _NEAREST = 20, 10
"""The largest number of names in a full list; with more names, the most similar names that are listed instead."""
_MISSPELT = 0.8
"""The similarity, from 0 to 1, from which on an unknown name is taken for a known one that is misspelt."""


def listing(names: Iterable[str], *, limit: int = _LISTED) -> str:
    """List `names`, sorted and cut after `limit`."""
    ordered = sorted(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return (", ".join(ordered[:limit]) or "none") + more


def unknown_name(kind: str, name: str, known: Iterable[str], *, of: str = "", otherwise: str = "") -> UnknownNameError:
    """Make an error that suggests similar names and lists the names that exist: all, or only similar ones if many.

    Args:
        kind: What the name should be the name of.
        name: The unknown name.
        known: The names that exist.
        of: What the names belong to.
        otherwise: A sentence on what else the user may have meant; left out if the name is a known one misspelt.
    """
    known = sorted(known)
    nearest = get_close_matches(name, known, n=_NEAREST, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, nearest[:3]))}?" if nearest else ""
    owner = f" of {of}" if of else ""
    exists = f"Known: {listing(known)}"
    if len(known) > _LISTED:
        exists = (
            f"The nearest of {len(known):,}: {', '.join(nearest)}" if nearest else f"None of {len(known):,} is like it"
        )
    misspelt = get_close_matches(name, known, n=1, cutoff=_MISSPELT)
    more = f" {otherwise}" if otherwise and not misspelt else ""
    return UnknownNameError(f"unknown {kind} {name!r}{owner}.{hint} {exists}.{more}")


class Problem(NamedTuple):
    """The first thing that pydantic found wrong in some values.

    Attributes:
        kind: The type of the problem in pydantic's words, such as `missing`.
        location: The path to the wrong value: names of fields and indices.
        message: What is wrong, in the words of users.
        value: The wrong value.
    """

    kind: str
    location: tuple[int | str, ...]
    message: str
    value: Any

    @property
    def place(self) -> str:
        """The path to the wrong value as users write it, such as `calibration.samples`; empty for the whole."""
        return ".".join(map(str, self.location))

    def __str__(self) -> str:
        """The place and the message, in one line."""
        return f"{self.place}: {self.message}".removeprefix(": ")


def first_problem(error: ValidationError) -> Problem:
    """Return the first problem in values that pydantic refuses."""
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    message = message.replace("valid tuple", "list").replace("valid dictionary", "mapping of names to values")
    return Problem(problem["type"], problem["loc"], message, problem["input"])


def one_line(error: BaseException) -> str:
    """Return the class and the message of an error, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def cause(error: BaseException) -> str:
    """Return the first line of an error's message, and the next line if the first one ends within a sentence.

    The class is put before the message of a `KeyError`, which is only the key, and of errors without a message.
    """
    lines = []
    for line in filter(None, map(str.strip, str(error).splitlines())):
        lines.append(line)
        if not line.endswith((":", ",", " or")):
            break
    return " ".join(lines) if lines and not isinstance(error, KeyError) else one_line(error).rstrip(": ")
