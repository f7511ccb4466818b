"""Scales the residual stream from a gap on, by dividing what later blocks write into it.

Every later norm cancels a common factor of the whole stream, up to the norm's eps. So the stream itself need not be
multiplied: dividing everything that is added after the gap by the factor has the same effect. (Prune&Comp,
arXiv:2507.18212, puts its factor into the weights before the gap, which is impossible if embeddings are tied to the
head.) Whether this holds for a model is decided by a test: with its later writers scaled, the model must have the same
output as with its stream scaled by a hook.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.func import functional_call

from layerimp.blocks.equivalence import TOLERANCE, deviation, last_hidden
from layerimp.blocks.forward import block_input, hidden_states, with_input
from layerimp.blocks.sites import find_taps
from layerimp.errors import ModelError
from layerimp.healing.gaps import has_feature_weight, offset_of
from layerimp.healing.parameters import held_by, replace, trying

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack
    from layerimp.healer import Gap

TRIAL = 2.0
"""The factor of the test: a power of two, by which floating-point numbers are scaled without rounding."""
CLOSE = 0.01
"""The largest difference between the two outputs, relative to the largest value. The effect of the norms' eps is far
smaller; in a model that does not cancel the factor, the difference is of the order of 1."""
ROUNDINGS = 16
"""The largest difference in half precision, in roundings, if that is more."""


Scales = dict[str, float]
"""The paths of parameters that scale what is written into the stream, and the constant that is added to each when it is
used: 1 in norms that multiply by 1 + weight, else 0."""


def scale_stream(stack: BlockStack, gap: Gap, factor: float) -> None:
    """Multiply the residual stream from a gap on, by replacing parameters of later blocks.

    Args:
        stack: The blocks of the pruned model.
        gap: The gap, with a block after it.
        factor: A number above 0.

    Raises:
        ModelError: this cannot be done exactly in this model; the error says why. Nothing is changed.
    """
    _scale(stack, later_writers(stack, gap), 1 / factor)


def _scale(stack: BlockStack, writers: Scales, factor: float) -> None:
    """Let parameters write `factor` times as much; the values are computed in float64."""
    for path, offset in writers.items():
        value = stack.model.get_parameter(path).detach().double()
        replace(stack.model, path, factor * (value + offset) - offset)


@contextmanager
def stream_scaled(stack: BlockStack, gap: Gap, factor: float) -> Iterator[None]:
    """A context in which a hook multiplies the residual stream at a gap, to try a factor without changing a weight."""

    def enter(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return with_input(args, kwargs, factor * block_input(args, kwargs))

    with stack[gap.position].register_forward_pre_hook(enter, with_kwargs=True):
        yield


def later_writers(stack: BlockStack, gap: Gap) -> Scales:
    """Find the parameters that together scale everything written into the stream after a gap.

    Raises:
        ModelError: there are no such parameters, or scaling them does not have the effect of scaling the stream.
    """
    name = type(stack.model).__name__
    if gap.after is None:
        raise ModelError(f"{gap}: nothing but the final norm comes after, which cancels any factor")
    writers: Scales = {}
    for path, call in _additions(stack, gap.position).items():
        factors = _factors(stack.model.get_submodule(path), call)
        if not factors:
            raise ModelError(f"{name}: no set of weights scales what {path} writes into the stream")
        writers |= {f"{path}.{parameter}": offset for parameter, offset in factors.items()}
    places = Counter(id(parameter) for _, _, parameter in held_by(stack.model))
    if shared := [path for path in writers if places[id(stack.model.get_parameter(path))] > 1]:
        raise ModelError(f"{name} shares {shared[0]} with other places, and it cannot be scaled in one alone")
    with stream_scaled(stack, gap, TRIAL):
        expected = last_hidden(stack)
    with trying(stack.model):
        _scale(stack, writers, 1 / TRIAL)
        off = float((last_hidden(stack) - expected).abs().max() / expected.abs().max())
    if not off <= max(CLOSE, ROUNDINGS * torch.finfo(expected.dtype).eps):
        raise ModelError(
            f"{name} cannot be scaled in its later writers ({off:.1%} off): its norms do not cancel a factor of the "
            "whole stream"
        )
    return writers


class _Call(NamedTuple):
    """The arguments of a call of a module, and its output."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor


def _factors(module: nn.Module, call: _Call) -> dict[str, float]:
    """Return the last set of parameters that scale a module's output, with their constants; empty if there is none."""
    parameters = dict(module.named_parameters())
    if has_feature_weight(module):
        offset = offset_of(module)
        return {} if offset is None else dict.fromkeys(parameters, 0.0) | {"weight": offset}
    groups: dict[str, list[str]] = {}
    for path in parameters:
        groups.setdefault(_base(path), []).append(path)
    for names in reversed(groups.values()):
        with torch.no_grad():
            changed = {name: TRIAL * parameters[name].detach() for name in names}
            output = hidden_states(functional_call(module, changed, call.args, call.kwargs))
        if deviation(TRIAL * call.output, output) <= TOLERANCE:
            return dict.fromkeys(names, 0.0)
    return {}


def _base(path: str) -> str:
    """Return the part of a name that the parameters of one map, or of the same map in every expert, have in common."""
    *_, owner, name = ["", *path.split(".")]
    return (owner if name in ("weight", "bias") else name).removesuffix("_bias")


def _additions(stack: BlockStack, position: int) -> dict[str, _Call]:
    """Find the modules that add to the stream from the block at `position` on, by path, and call each once."""
    paths: list[str] = []
    taps = find_taps(stack)
    for index in range(position, len(stack)):
        sites = [site for site in ("attn_out", "mlp_out") if site in taps[index]]
        if len(sites) < 2:
            raise ModelError(f"it is not clear what block {index} of what is left adds to the residual stream")
        paths += [f"{stack.path}.{index}.{taps[index][site].path}" for site in sites]
    calls: dict[str, _Call] = {}

    def take(path: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls[path] = _Call(args, kwargs, hidden_states(output).clone())

    with ExitStack() as hooks:
        for path in paths:
            module = stack.model.get_submodule(path)
            hooks.enter_context(module.register_forward_hook(partial(take, path), with_kwargs=True))
        last_hidden(stack)
    return calls
