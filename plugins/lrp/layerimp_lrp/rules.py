"""The relevance rules: one torch function mode for every architecture, without a file per model.

While `Rules` is active, every torch function returns exactly the same values as without it; only the backward pass
differs. Gradient times input is then the relevance of layer-wise relevance propagation (Bach et al. 2015), in its form
for transformers (Ali et al. 2022; Achtibat et al. 2024, AttnLRP):

| forward | backward |
|---|---|
| a root, or an inverse root, of a mean square; a divisor | a constant |
| layer norm, RMS norm | linear: sigma is a constant |
| an element-wise activation with f(0) = 0 | linear, with the slope of the secant, f(x) / x |
| a sigmoid used as a gate, an erf | a constant |
| a product of n activations, or the n-th power of one | each factor gets 1/n of the gradient |
| attention, rule set `cp` | queries, keys and the softmax are constants: relevance flows through the values only |
| attention, rule set `attnlrp` | each factor of its two products gets 1/2; the softmax keeps its gradient |

Under `cp` every operation is linear in the backward pass, so relevance is conserved: at any depth the model's output is
<h, g> plus the contribution <c, df/dc> of every constant c that is added later, such as a bias. The rules sum up these
contributions during the backward pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from layerimp.stats import working_dtype
from layerimp_lrp.gradients import Function, before_it_passes, flows, linear_norm, scaled, secant

RuleSet = Literal["cp", "attnlrp"]
CONSTANTS = "constants"
"""The name in `Rules.sums` of the contributions of the constants so far [], float64."""

Rule = Callable[..., Any]
"""A function of the active `Rules`, a torch function, and the arguments of the torch function."""


class Rules(TorchFunctionMode):
    """A mode that changes the gradients of everything computed while it is active, but no values.

    Args:
        rule_set: How attention is treated.

    Attributes:
        rule_set: How attention is treated.
        hits: The number of occurrences of `normalization` and `attention`.
        sums: Sums over the backward pass, by name; clear them before the next pass.
    """

    def __init__(self, rule_set: RuleSet = "cp") -> None:
        super().__init__()
        self.rule_set = rule_set
        self.hits: Counter[str] = Counter()
        self.sums: dict[str, Tensor] = {}

    def __torch_function__(
        self, func: Function, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call `func`, under its rule if it has one."""
        rule = _RULES.get(func) if torch.is_grad_enabled() else None
        call = func if rule is None else partial(rule, self, func)
        return call(*args, **(kwargs or {}))

    def count_constant(self, output: Tensor, constant: Tensor | float, factor: float = 1.0) -> None:
        """Add up the contribution of a constant in the coming backward pass.

        Args:
            output: The sum that contains the constant.
            constant: The constant.
            factor: The factor with which the constant was added.
        """

        def contribute(gradient: Tensor) -> Tensor:
            if isinstance(constant, Tensor):
                reduced = gradient.to(working_dtype(gradient.dtype)).sum_to_size(constant.shape)
                share = (reduced.double() * constant.detach().double()).sum() * factor
            else:
                share = gradient.sum(dtype=torch.float64) * (constant * factor)
            before = self.sums.get(CONSTANTS, torch.zeros_like(share))
            self.sums[CONSTANTS] = before.to(share.device) + share
            return gradient

        before_it_passes(output, contribute)


# Parameters have the same names as in torch, because a model may pass them by name.


def _activation(_rules: Rules, func: Function, input: Any, *args: Any, **kwargs: Any) -> Any:
    if not flows(input):
        return func(input, *args, **kwargs)
    return secant(lambda value: func(value, *args, **kwargs), input)


def _constant(_rules: Rules, func: Function, *args: Any, **kwargs: Any) -> Any:
    """Treat a gate, or the reciprocal of a divisor, as a constant."""
    return func(*args, **kwargs).detach()


def _root(rules: Rules, func: Function, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Treat the scale of a normalization that is written in Python as a constant."""
    rules.hits["normalization"] += flows(input)
    return func(input, *args, **kwargs).detach()


def _power(rules: Rules, func: Function, input: Any, exponent: Any, **kwargs: Any) -> Any:
    if isinstance(exponent, int | float) and exponent < 1:
        return _root(rules, func, input, exponent, **kwargs)
    return _shared(func(input, exponent, **kwargs), exponent)


def _square(_rules: Rules, func: Function, input: Any) -> Any:
    return _shared(func(input), 2)


def _product(_rules: Rules, func: Function, *args: Any, **kwargs: Any) -> Any:
    operands = chain.from_iterable(
        arg if isinstance(arg, list | tuple) else (arg,) for arg in (*args, *kwargs.values())
    )
    factors = sum(map(flows, operands))  # counted first: an in-place product overwrites a factor
    return _shared(func(*args, **kwargs), factors)


def _shared(product: Any, factors: Any) -> Any:
    """Divide the gradient of a product equally among its factors."""
    if flows(product) and isinstance(factors, int | float) and factors > 1:
        before_it_passes(product, lambda gradient: gradient / factors)
    return product


def _quotient(_rules: Rules, func: Function, input: Any, other: Any, **kwargs: Any) -> Any:
    return func(input, other.detach() if flows(other) else other, **kwargs)


def _sum(rules: Rules, func: Function, input: Any, other: Any, **kwargs: Any) -> Any:
    first, second = flows(input), flows(other)
    output = func(input, other, **kwargs)
    if first and not second:
        rules.count_constant(output, other, kwargs.get("alpha", 1))
    elif second and not first and output is not input:  # an in-place sum overwrites the constant
        rules.count_constant(output, input)
    return output


def _linear(rules: Rules, func: Function, input: Any, weight: Any, bias: Any = None) -> Any:
    output = func(input, weight, bias)
    if bias is not None and flows(output):
        rules.count_constant(output, bias)
    return output


def _sum_with_product(rules: Rules, func: Function, input: Any, *args: Any, **kwargs: Any) -> Any:
    output = func(input, *args, **kwargs)
    if flows(output) and not flows(input):
        rules.count_constant(output, input, kwargs.get("beta", 1))  # before the gradient is divided
        _shared(output, sum(map(flows, (*args, *kwargs.values()))))
    return output


def _layer_norm(
    rules: Rules,
    func: Function,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *more: Any,
) -> Any:
    if not flows(input):
        return func(input, normalized_shape, weight, bias, eps, *more)
    dims = tuple(range(-len(normalized_shape), 0))
    wide = input.detach().to(working_dtype(input.dtype))
    scale = (wide.var(dims, correction=0, keepdim=True) + eps).rsqrt()
    rules.hits["normalization"] += 1
    norm = linear_norm(
        lambda value: func(value, normalized_shape, weight, bias, eps, *more), input, scale, weight, dims
    )
    if bias is not None:
        rules.count_constant(norm, bias)
    return norm


def _rms_norm(
    rules: Rules,
    func: Function,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    eps: float | None = None,
    *more: Any,
) -> Any:
    if not flows(input):
        return func(input, normalized_shape, weight, eps, *more)
    wide = input.detach().to(working_dtype(input.dtype))
    least = torch.finfo(input.dtype).eps if eps is None else eps
    scale = (wide.square().mean(tuple(range(-len(normalized_shape), 0)), keepdim=True) + least).rsqrt()
    rules.hits["normalization"] += 1
    return linear_norm(lambda value: func(value, normalized_shape, weight, eps, *more), input, scale, weight, ())


def _softmax(rules: Rules, func: Function, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Treat the softmax as a constant under `cp`; only weights [batch, head, query, key] are counted as attention."""
    weights = func(input, *args, **kwargs)
    rules.hits["attention"] += flows(weights) and weights.ndim == 4
    return weights.detach() if rules.rule_set == "cp" else weights


def _attention(rules: Rules, func: Function, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Treat attention in one kernel: under `attnlrp` queries and keys pass two products, and values only one."""
    rules.hits["attention"] += flows(value)
    if rules.rule_set == "cp":
        return func(query.detach(), key.detach(), value, *args, **kwargs)
    return func(scaled(query, 1 / 4), scaled(key, 1 / 4), scaled(value, 1 / 2), *args, **kwargs)


_NAMES: dict[Rule, str] = {
    _activation: "gelu silu relu relu6 tanh leaky_relu elu selu celu mish hardswish softsign",
    _constant: "sigmoid hardsigmoid erf reciprocal __rdiv__",
    _root: "rsqrt sqrt",
    _power: "pow __pow__ float_power",
    _square: "square",
    _product: "mul multiply __mul__ __rmul__ mul_ __imul__ matmul __matmul__ __rmatmul__ mm bmm einsum",
    _quotient: "div divide true_divide __truediv__ div_ __itruediv__",
    _sum: "add __add__ __radd__ add_ __iadd__",
    _linear: "linear",
    _sum_with_product: "addmm baddbmm",
    _layer_norm: "layer_norm",
    _rms_norm: "rms_norm",
    _softmax: "softmax",
    _attention: "scaled_dot_product_attention",
}
_HOMES = (torch, Tensor, functional)
_RULES: dict[Function, Rule] = {
    getattr(home, name): rule
    for rule, names in _NAMES.items()
    for name in names.split()
    for home in _HOMES
    if hasattr(home, name)
}
