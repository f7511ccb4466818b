"""Steps whose values stay what they are, and whose gradients are others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]
Dims = tuple[int, ...]


def flows(value: Any) -> bool:
    """Whether relevance flows through a value on the way back."""
    return isinstance(value, Tensor) and value.requires_grad


def before_it_passes(output: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Change the gradient of `output` as it goes on to what `output` was computed from.

    It is the node of the graph that is hooked, which comes after every hook on the tensor: the gradient of `output`
    itself stays what it is.
    """
    assert output.grad_fn is not None

    def hook(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return tuple(gradient if gradient is None else change(gradient) for gradient in gradients)

    output.grad_fn.register_prehook(hook)


def scaled(x: Tensor, factor: float) -> Tensor:
    """`x`, with its gradient scaled."""
    if not flows(x):
        return x
    alias = x.view_as(x)
    before_it_passes(alias, lambda gradient: gradient * factor)
    return alias


def secant(activation: Function, x: Tensor) -> Tensor:
    """f(x), with the gradient of x times the constant f(x) / x; where x is 0 nothing flows."""
    y: Tensor = _Secant.apply(x, activation)  # type: ignore[no-untyped-call]
    return y


class _Secant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Function) -> Tensor:
        y: Tensor = activation(x)
        ctx.save_for_backward((y / x).masked_fill_(x == 0, 0))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None


def linear_norm(norm: Function, x: Tensor, scale: Tensor, weight: Tensor | None, mean_over: Dims) -> Tensor:
    """norm(x), with the gradient of (x - mean of x) * scale * weight at a constant scale.

    Args:
        norm: Computes the value.
        x: [..., features].
        scale: 1/sigma, broadcast over the features.
        weight: [features].
        mean_over: The dimensions of the mean; none where the norm takes none.
    """
    y: Tensor = _LinearNorm.apply(x, norm, scale, weight, mean_over)  # type: ignore[no-untyped-call]
    return y


class _LinearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Function, scale: Tensor, weight: Tensor | None, mean_over: Dims) -> Tensor:
        ctx.mean_over = mean_over
        ctx.save_for_backward(scale, weight)
        y: Tensor = norm(x)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale, weight = ctx.saved_tensors
        through = gradient * scale if weight is None else gradient * weight * scale
        if ctx.mean_over:
            through = through - through.mean(ctx.mean_over, keepdim=True)
        return through.to(gradient.dtype), None, None, None, None
