"""Refuses an option that is given several times but can have only one value; click would keep the last one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any


def refuse_repeated(command: Any, context: Any, arguments: Sequence[str]) -> None:
    """Refuse a command line that gives an option twice, unless the option is repeatable.

    A flag may be repeated, but not together with its opposite.

    Args:
        command: The click command.
        context: Its click context.
        arguments: The command line, without the name of the command.

    Raises:
        UsageError: of click; an option is given more than once.
    """
    words = list(pairwise([*arguments, ""]))
    for option in command.get_params(context):
        if option.param_type_name != "option" or option.multiple:
            continue
        names = (*option.opts, *option.secondary_opts)
        given = [(word, after) for word, after in words if word.partition("=")[0] in names]
        values = [repr(word.partition("=")[2] if "=" in word else after) for word, after in given]
        if not option.is_flag and len(given) > 1:
            context.fail(f"{option.opts[0]} can be given only once, got {' and '.join(values)}")
        if option.is_flag and len({word in option.secondary_opts for word, _ in given}) > 1:
            context.fail(f"{option.opts[0]} and {option.secondary_opts[0]} contradict each other")
