"""Refuses an option that is given several times but can have only one value; click would keep the last one."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
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
    parser = command.make_parser(context)
    single = [
        option for option in command.get_params(context) if option.param_type_name == "option" and not option.multiple
    ]
    for option in single:
        collecting = copy(option)
        collecting.multiple = True
        collecting.add_to_parser(parser, context)  # takes the place of the option
    values: dict[str, list[Any]] = parser.parse_args(list(arguments))[0]
    for option in single:
        given = [repr(value) for value in values.get(option.name) or ()]
        if option.is_flag:
            given = list(dict.fromkeys(given))
        if len(given) > 1:
            if option.is_flag:
                context.fail(f"{option.opts[0]} and {option.secondary_opts[0]} contradict each other")
            context.fail(f"{option.opts[0]} can be given only once, got {' and '.join(given)}")
