"""Replaces parameters of a model that shares its tensors with another model: copy on write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from torch import nn

from layerimp.errors import NonFiniteError, PluginError
from layerimp.models.dtypes import stored_dtype

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Held = list[tuple[nn.Module, str, nn.Parameter]]
"""Every place in a model that holds a parameter, as module, name and parameter; a tied parameter has several places."""


def replace(model: PreTrainedModel, path: str, value: Tensor) -> None:
    """Replace a parameter by a new one. The old tensor, which other models may share, stays as it is.

    The value is rounded to the dtype that the model is stored in, so that the measured model is the saved one. If the
    parameter is tied, it is replaced in all its places.

    Args:
        model: The model.
        path: The path of the parameter, such as `model.layers.3.mlp.down_proj.weight`.
        value: The new value, of the same shape, in any floating-point dtype.

    Raises:
        PluginError: there is no such parameter, or the value has another shape.
        NonFiniteError: the value holds a NaN or an infinity, at once or after rounding to the stored dtype.
    """
    try:
        old = model.get_parameter(path)
    except AttributeError:
        raise PluginError(f"{type(model).__name__} has no parameter {path}") from None
    if value.shape != old.shape:
        raise PluginError(f"{path} has the shape {list(old.shape)}, and its new value {list(value.shape)}")
    new = rounded(model, path, old, value)
    put([(module, name, new) for module, name, held in held_by(model) if held is old])


def rounded(model: PreTrainedModel, path: str, old: nn.Parameter, value: Tensor) -> nn.Parameter:
    """Return a copy of a value as `replace` stores it in place of a parameter.

    Raises:
        NonFiniteError: the value holds a NaN or an infinity, at once or after rounding to the stored dtype.
    """
    stored = stored_dtype(model) if old.dtype == model.dtype else old.dtype
    new = value.detach().to(device=old.device, dtype=stored).to(old.dtype, copy=True)
    if not new.isfinite().all():
        raise NonFiniteError(f"the new value of {path} holds a NaN or an infinity")
    return nn.Parameter(new, requires_grad=old.requires_grad)


@contextmanager
def trying(model: nn.Module) -> Iterator[Callable[[], object]]:
    """Undo all replacements of parameters made in this context, unless the function that it yields is called."""
    with ExitStack() as undo:
        undo.callback(put, held_by(model))
        yield undo.pop_all


def held_by(model: nn.Module) -> Held:
    """List the places in a model that hold parameters."""
    return [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]


def put(held: Held) -> None:
    """Put parameters into their places."""
    for module, name, parameter in held:
        module._parameters[name] = parameter


def changed(before: Held, model: nn.Module) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """Return the old and the new value of each parameter replaced since `before`, by path; tied parameters once."""
    paths = {
        (id(module), name): f"{path}.{name}" for path, module in model.named_modules() for name in module._parameters
    }
    pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
    seen: set[int] = set()
    for module, name, old in before:
        new = module._parameters[name]
        if new is not None and new is not old and id(new) not in seen:
            seen.add(id(new))
            pairs[paths[id(module), name]] = (old, new)
    return pairs
