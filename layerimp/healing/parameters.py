"""Replaces parameters of a model that shares its tensors with another one: copy on write."""

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
"""Every place of a model that holds a parameter: module, name, parameter; a tied one is there once for each place."""


def replace(model: PreTrainedModel, path: str, value: Tensor) -> None:
    """Put a new parameter in the place of one. The old tensor, which other models may share, stays as it is.

    The value is rounded to the dtype that the model is stored in, so that what is measured is what is saved. Where the
    parameter is tied, all its places get the new one.

    Args:
        model: The model.
        path: The parameter, such as `model.layers.3.mlp.down_proj.weight`.
        value: Its new value, of the same shape, in any floating-point dtype.

    Raises:
        PluginError: there is no such parameter, or it has another shape.
        NonFiniteError: the value holds a NaN or an infinity, or does as the model stores it.
    """
    try:
        old = model.get_parameter(path)
    except AttributeError:
        raise PluginError(f"{type(model).__name__} has no parameter {path}") from None
    if value.shape != old.shape:
        raise PluginError(f"{path} has the shape {list(old.shape)}, and its new value {list(value.shape)}")
    stored = stored_dtype(model) if old.dtype == model.dtype else old.dtype
    rounded = value.detach().to(device=old.device, dtype=stored).to(old.dtype, copy=True)
    if not rounded.isfinite().all():
        raise NonFiniteError(f"the new value of {path} holds a NaN or an infinity")
    new = nn.Parameter(rounded, requires_grad=old.requires_grad)
    put([(module, name, new) for module, name, held in held_by(model) if held is old])


@contextmanager
def trying(model: nn.Module) -> Iterator[Callable[[], object]]:
    """Put every parameter that is replaced in here back in the end, unless what this yields is called: keep them."""
    with ExitStack() as undo:
        undo.callback(put, held_by(model))
        yield undo.pop_all


def held_by(model: nn.Module) -> Held:
    """Where a model holds which parameter."""
    return [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]


def put(held: Held) -> None:
    """Let modules hold these parameters."""
    for module, name, parameter in held:
        module._parameters[name] = parameter


def changed(before: Held, model: nn.Module) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """The parameters that were replaced since `before`, old and new, by their path; tied ones once."""
    paths = {
        (id(module), name): f"{path}.{name}" for path, module in model.named_modules() for name in module._parameters
    }
    found: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
    seen: set[int] = set()
    for module, name, old in before:
        new = module._parameters[name]
        if new is not None and new is not old and id(new) not in seen:
            seen.add(id(new))
            found[paths[id(module), name]] = (old, new)
    return found
