"""The base of everything that a recipe holds."""

from __future__ import annotations

from layerimp.component import Plain
from layerimp.errors import OptionError


class Part(Plain):
    """A part of a recipe."""


def check_kind(given: object, kind: type[Part]) -> None:
    """Refuse what is no description of that kind, such as a plain dict.

    Raises:
        OptionError: it is something else.
    """
    if not isinstance(given, kind):
        raise OptionError(f"a layerimp.{kind.__name__} is needed, got a {type(given).__name__}")
