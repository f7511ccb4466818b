"""Shell completion: the names of installed components and assets, and the values of options.

This code runs at every press of TAB, so it imports nothing that the names do not need.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from textwrap import shorten
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.registry.names import Named

WIDTH = 60
"""The longest description, in characters. A longer one would be wrapped, and fish takes each line for a name."""
NAMED: dict[str, Named] = {
    "model": "model",
    "models": "model",
    "scorers": "scorer",
    "baselines": "scorer",
    "pruner": "pruner",
    "pruners": "pruner",
    "healers": "healer",
    "evaluators": "evaluator",
    "source": "text",
    "heal_text": "text",
    "tasks": "task",
}
"""The fields of recipes that hold names of installed components or assets, with their kinds."""
Offer = Callable[[str], list[tuple[str, str]]]
"""Maps the incomplete word to its completions, each with a description."""


def offers(*words: str, kind: Named | None = None, after: str = "") -> Offer:
    """Complete words, and the installed names of a kind.

    Args:
        words: The words, such as the values of an option.
        kind: The kind.
        after: The separator before a name in the same word: `=` in LABEL=NAME, or a comma in a list.
    """

    def offer(incomplete: str) -> list[tuple[str, str]]:
        before, separator, begun = incomplete.rpartition(after) if after else ("", "", incomplete)
        known = {**dict.fromkeys(words, ""), **(_installed(kind) if kind else {})}
        return [
            (f"{before}{separator}{name}", shorten(what, WIDTH, placeholder=" …"))
            for name, what in known.items()
            if name.startswith(begun)
        ]

    return offer


def _installed(kind: Named) -> Mapping[str, str]:
    """Return the names of a kind; output and warnings of plugins are dropped, because they would garble the prompt."""
    from layerimp.registry.names import installed_names

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return installed_names()[kind]
