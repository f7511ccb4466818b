"""Composed blocks: the attention half of one block with the MLP half of a later one."""

from __future__ import annotations

import functools
import types
from collections.abc import Collection
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from torch import nn

from layerimp.blocks.middle import in_mlp
from layerimp.errors import SurgeryError

if TYPE_CHECKING:
    from layerimp.blocks.middle import Halves

_OWN = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
"""The dictionaries of a module of which a copy gets its own."""


def composed(attention: nn.Module, mlp: nn.Module, halves: tuple[Halves, Halves]) -> nn.Module:
    """Make a block from the attention half of one block and the MLP half of another; both stay as they are.

    Submodules are shared. A module that contains parts of both halves is copied from the attention's block.

    Args:
        attention: The block that provides the attention half.
        mlp: The block that provides the MLP half.
        halves: The halves of both blocks.

    Raises:
        SurgeryError: the two blocks are not divided in the same way, or lie on different devices.
    """
    old, new = (half.mlp for half in halves)
    taken = {path for path in new if not in_mlp(path, old) and _has(attention, path)}
    if taken or any(parts_both(path, old | new) for path in old | new):
        raise SurgeryError("hold their attention and their MLP in different forms")
    if len(devices := {str(parameter.device) for block in (attention, mlp) for parameter in block.parameters()}) > 1:
        raise SurgeryError(f"lie on several devices ({', '.join(sorted(devices))})")
    copies = {"": _copied(attention)}
    spanning = {above for path in old | new for above in _above(path)} - {""}
    for path in sorted(spanning, key=lambda path: path.count(".")):
        parent, _, name = path.rpartition(".")
        copies[path] = copies[parent]._modules[name] = _copied(attention.get_submodule(path))
    for path in old - new:
        parent, _, name = path.rpartition(".")
        _held(copies[parent], name).pop(name)
    for path in sorted(new):
        parent, _, name = path.rpartition(".")
        donor = mlp.get_submodule(parent)
        kept = _held(donor, name)
        own: dict[str, Any] = vars(copies[parent])[next(kind for kind in _OWN if vars(donor)[kind] is kept)]
        own[name] = kept[name]
        if name in donor._non_persistent_buffers_set:
            copies[parent]._non_persistent_buffers_set.add(name)
    return copies[""]


def parts_both(path: str, mlp: Collection[str]) -> bool:
    """Whether a module, by its path in a block, contains parts of both halves: it contains paths of the MLP half."""
    return any(path in _above(name) for name in mlp)


def _above(path: str) -> list[str]:
    """Return the paths of all modules that contain a path, including the block itself, whose path is empty."""
    names = path.split(".")
    return [".".join(names[:depth]) for depth in range(len(names))]


def _has(block: nn.Module, path: str) -> bool:
    """Whether a block has a module, parameter or buffer at a path."""
    try:
        return attrgetter(path)(block) is not None
    except AttributeError:
        return False


def _held(module: nn.Module, name: str) -> dict[str, Any]:
    """Return the dictionary of a module that holds a part."""
    return next(held for kind in _OWN[:3] if name in (held := vars(module)[kind]))


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy of a module that shares all its parts, and whose parts can be replaced separately."""
    copied = type(module).__new__(type(module))
    vars(copied).update(vars(module))
    for kind in _OWN:
        vars(copied)[kind] = vars(module)[kind].copy()
    for name, value in vars(module).items():
        if isinstance(value, types.MethodType) and value.__self__ is module:
            vars(copied)[name] = types.MethodType(value.__func__, copied)
        elif isinstance(value, functools.partial) and any(part is module for part in value.args):  # of accelerate
            args = (copied if part is module else part for part in value.args)
            vars(copied)[name] = functools.update_wrapper(functools.partial(value.func, *args, **value.keywords), value)
    return copied
