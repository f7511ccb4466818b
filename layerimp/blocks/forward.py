"""Runs a backbone, whole or with other computations in place of its blocks' own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from layerimp.errors import LayerimpError, ModelError, one_line


def run(backbone: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    """What a backbone puts out for a batch; without padding it gets no mask, and attention can take its fast path."""
    mask = batch["attention_mask"]
    masked = {} if bool(mask.all()) else {"attention_mask": mask}
    return called(backbone, input_ids=batch["input_ids"], **masked, **without_cache(backbone))


def called(module: nn.Module, **inputs: Any) -> Any:
    """What a part of a model puts out.

    Raises:
        ModelError: it cannot; whatever the model says of it in one line.
    """
    try:
        return module(**inputs)
    except (LayerimpError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{type(module).__name__} cannot run on a batch: {one_line(error)}") from error


def without_cache(module: nn.Module) -> dict[str, bool]:
    """What tells a model to do without a cache, where it knows one."""
    return {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}


def hidden_states(output: Any) -> Tensor:
    """The hidden states [batch, seq, hidden] that a block, or a part of one, returned.

    Some architectures return them bare, some first in a tuple or a mapping.
    """
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output
    return next(item for item in items if isinstance(item, Tensor))


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """A block's output with other hidden states in it."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, Mapping):
        first = next(name for name, item in output.items() if isinstance(item, Tensor))
        return type(output)(**{**output, first: hidden})
    position = next(i for i, item in enumerate(output) if isinstance(item, Tensor))
    items = (*output[:position], hidden, *output[position + 1 :])
    return type(output)(*items) if hasattr(output, "_fields") else items


def block_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states [batch, seq, hidden] that a block was called with."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    if isinstance(hidden := kwargs.get("hidden_states"), Tensor):
        return hidden
    return next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point())


def with_input(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a block was called with, with other hidden states in it."""
    old = block_input(args, kwargs)
    return (
        tuple(hidden if value is old else value for value in args),
        {name: hidden if value is old else value for name, value in kwargs.items()},
    )


@contextmanager
def computing(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let `module` compute `forward` in place of its own; its hooks stay, and on leaving it is as it was."""
    own = vars(module).get("forward")
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        if own is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = own


@contextmanager
def giving_back(
    outputs: Mapping[nn.Module, Any], first: Mapping[nn.Module, Callable[[], None]] = MappingProxyType({})
) -> Iterator[None]:
    """Let blocks give back what they gave in an earlier pass, without computing it again; their hooks are called.

    Args:
        outputs: What they gave, by block.
        first: What to call before a block does so.
    """
    with ExitStack() as undo:
        for block, output in outputs.items():
            undo.enter_context(computing(block, partial(_constant, output, first.get(block))))
        yield


def _constant(output: Any, first: Callable[[], None] | None, *_args: Any, **_kwargs: Any) -> Any:
    if first is not None:
        first()
    return output
