"""What a shell offers at a press of TAB: names that are installed, and the values that an option has.

Everything here runs while somebody waits at a prompt, so nothing is imported that the names do not need.
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
"""Characters of the line that goes with a name: a longer one would be broken, and fish takes each line for a name."""
Offer = Callable[[str], list[tuple[str, str]]]
"""From what is typed so far to what it may become, each with a line that says what it is."""


def names(kind: Named, *more: str, after: str = "") -> Offer:
    """Offers what is installed of a kind.

    Args:
        kind: The kind.
        more: Names beside them, such as `all`.
        after: What may stand before a name in the same word: the `=` of LABEL=NAME, or the comma of a list.
    """

    def offer(incomplete: str) -> list[tuple[str, str]]:
        return _starting(incomplete, {**dict.fromkeys(more, ""), **_installed(kind)}, after)

    return offer


def values(*known: str) -> Offer:
    """Offers the values that an option takes."""

    def offer(incomplete: str) -> list[tuple[str, str]]:
        return _starting(incomplete, dict.fromkeys(known, ""), "")

    return offer


def _starting(incomplete: str, known: Mapping[str, str], after: str) -> list[tuple[str, str]]:
    before, separator, begun = incomplete.rpartition(after) if after else ("", "", incomplete)
    found = {name: what for name, what in known.items() if name.startswith(begun)}
    return [(f"{before}{separator}{name}", shorten(what, WIDTH, placeholder=" …")) for name, what in found.items()]


def _installed(kind: Named) -> Mapping[str, str]:
    """The names of a kind. A prompt is no place for what plugins print or warn of."""
    from layerimp.registry.names import installed_names

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        return installed_names()[kind]
