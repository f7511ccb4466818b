"""Find modules that are element-wise activations, by testing their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from layerimp.blocks import computing
from layerimp_lrp.gradients import flows, secant


@contextmanager
def linear_activations(model: nn.Module) -> Iterator[None]:
    """Give every module that is an element-wise activation with f(0) = 0 the slope of its secant, f(x) / x.

    The rules alone would see only the operations inside such a module: a GELU written in Python would be a product of
    sums.
    """
    with ExitStack() as undo:
        for module in model.modules():
            if _is_activation(module):
                undo.enter_context(computing(module, _secant_of(module.forward)))
        yield


def _secant_of(activation: Callable[..., Any]) -> Callable[..., Any]:
    def forward(x: Tensor) -> Any:
        return secant(activation, x) if torch.is_grad_enabled() and flows(x) else activation(x)

    return forward


def _is_activation(module: nn.Module) -> bool:
    """Return whether a module is element-wise, maps 0 to 0, and is not the identity."""
    tensors = list(chain(module.parameters(), module.buffers()))
    if any(True for _ in module.children()) or any(tensor.ndim > 1 for tensor in tensors):
        return False
    points = torch.tensor([0.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0], device=tensors[0].device if tensors else "cpu")
    try:
        with torch.no_grad():
            whole = module.forward(points.clone())
            parts = torch.cat([module.forward(part.clone()) for part in points.split(2)])
    except Exception:  # the module does not accept a single tensor of any shape
        return False
    by_element = isinstance(whole, Tensor) and whole.shape == points.shape and torch.allclose(whole, parts)
    return by_element and float(whole[0]) == 0 and not torch.equal(whole.to(points.device), points)
