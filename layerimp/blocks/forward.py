"""Runs a backbone, as it is or with the computations of blocks replaced."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from layerimp.errors import LayerimpError, ModelError, one_line


def run(backbone: nn.Module, batch: Mapping[str, Tensor]) -> Any:
    """Return the output of a backbone for a batch. Without padding no mask is passed, so that attention can be fast.

    Raises:
        ModelError: the backbone cannot run on the batch.
    """
    mask = batch["attention_mask"]
    masked = {} if bool(mask.all()) else {"attention_mask": mask}
    return called(backbone, input_ids=batch["input_ids"], **masked, **without_cache(backbone))


def called(module: nn.Module, **inputs: Any) -> Any:
    """Return the output of a part of a model.

    Raises:
        ModelError: the call failed; the error gives the reason in one line.
    """
    try:
        return module(**inputs)
    except (LayerimpError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{type(module).__name__} cannot run on a batch: {one_line(error)}") from error


def without_cache(module: nn.Module) -> dict[str, bool]:
    """Return the arguments that turn off a model's cache; empty for a model without one."""
    return {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}


def hidden_states(output: Any) -> Tensor:
    """Return the hidden states [batch, seq, hidden] in the output of a block, or of a part of one.

    Some architectures return them directly, others as the first item of a tuple or a mapping.
    """
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output
    return next(item for item in items if isinstance(item, Tensor))


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """Return a block's output with the hidden states replaced."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, Mapping):
        first = next(name for name, item in output.items() if isinstance(item, Tensor))
        return type(output)(**{**output, first: hidden})
    position = next(i for i, item in enumerate(output) if isinstance(item, Tensor))
    items = (*output[:position], hidden, *output[position + 1 :])
    return type(output)(*items) if hasattr(output, "_fields") else items


def block_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden states [batch, seq, hidden] in the arguments of a block."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    if isinstance(hidden := kwargs.get("hidden_states"), Tensor):
        return hidden
    return next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point())


def with_input(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a block with the hidden states replaced."""
    old = block_input(args, kwargs)
    return (
        tuple(hidden if value is old else value for value in args),
        {name: hidden if value is old else value for name, value in kwargs.items()},
    )


@contextmanager
def computing(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """A context in which `module` computes `forward` in place of its own; its hooks stay in place."""
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
def giving_back(outputs: Mapping[nn.Module, Any]) -> Iterator[None]:
    """A context in which blocks return outputs of an earlier pass without computing; their hooks are called."""
    with ExitStack() as undo:
        for block, output in outputs.items():
            undo.enter_context(computing(block, partial(_constant, output)))
        yield


def _constant(output: Any, *_args: Any, **_kwargs: Any) -> Any:
    """Return an output with the same tensors in a new container, in which a model may replace them."""
    return output if isinstance(output, Tensor) else tree_map(lambda leaf: leaf, output)
