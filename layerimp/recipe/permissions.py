"""The permissions to run code, which a recipe file can never give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from layerimp.errors import InputError


@dataclass(frozen=True)
class Permissions:
    """Which code that came with data may run. Given on the command line or in Python, never by a recipe file.

    Attributes:
        trust_remote_code: Whether Python code that comes with a model may run.
        allow_task_code: Whether Python functions may run that an evaluation task given by path names (`!function`).
    """

    trust_remote_code: bool = False
    allow_task_code: bool = False


PERMISSIONS = frozenset(Permissions.__dataclass_fields__)
"""The names of the permissions."""


def refuse_permissions(values: Any, where: str) -> None:
    """Refuse values that contain a permission to run code, at any depth.

    Raises:
        InputError: a value switches on such a permission, or the values refer to themselves.
    """
    above, done = set[int](), set[int]()
    pending = [(values, False)]
    while pending:
        value, left = pending.pop()
        if left:
            above.remove(id(value))
            done.add(id(value))
        elif id(value) in above:  # a YAML anchor may refer to itself
            raise InputError(f"{where} refers to itself")
        elif isinstance(value, dict | list | tuple) and id(value) not in done:  # several aliases may be one value
            for key in value if isinstance(value, dict) else ():
                if key in PERMISSIONS:
                    raise InputError(f"{where} cannot switch on {key}; give the flag --{key.replace('_', '-')} instead")
            above.add(id(value))
            pending.append((value, True))
            pending += [(part, False) for part in (value.values() if isinstance(value, dict) else value)]
