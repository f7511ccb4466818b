"""Operations with unchanged values and modified gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]
Dims = tuple[int, ...]


def flows(value: Any) -> bool:
    """Return whether relevance flows through a value in the backward pass."""
    return isinstance(value, Tensor) and value.requires_grad


def before_it_passes(output: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    """Change the gradient that `output` passes on to its inputs.

    The hook is on the node of the autograd graph. It runs after every hook on the tensor, so the gradient of `output`
    itself is unchanged.

    Args:
        output: The result of the operation.
        change: Returns the new gradient for a gradient of `output`.
    """
    assert output.grad_fn is not None

    def hook(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return tuple(gradient if gradient is None else change(gradient) for gradient in gradients)

    output.grad_fn.register_prehook(hook)


def scaled(x: Tensor, factor: float) -> Tensor:
    """Return `x`, with its gradient scaled by `factor`."""
    if not flows(x):
        return x
    alias = x.view_as(x)
    before_it_passes(alias, lambda gradient: gradient * factor)
    return alias


def secant(activation: Function, x: Tensor) -> Tensor:
    """Return f(x), with the gradient of x times the constant f(x) / x; where x is 0, the gradient is 0."""
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
    """Return norm(x), with the gradient of (x - mean of x) * scale * weight, where the scale is constant.

    Args:
        norm: Computes the value.
        x: The input [..., features].
        scale: 1/sigma, broadcast over the features.
        weight: The norm's weight [features]; None if the norm has none.
        mean_over: The dimensions of the mean; empty if the norm subtracts no mean.
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
