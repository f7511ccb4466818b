"""Scales the residual stream from a gap on, by dividing what later sublayers write into it.

Every later norm cancels a common factor of the whole stream, up to the norm's eps. So the stream itself need not be
multiplied: dividing everything that is added after the gap by the factor has the same effect. (Prune&Comp,
arXiv:2507.18212, puts its factor into the weights before the gap, which is impossible if embeddings are tied to the
head.) Whether this holds for a model is decided by a test: with its later writers scaled, the model must have the same
output as with its stream scaled by a hook.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call

from layerimp.blocks.equivalence import TOLERANCE, deviation, last_hidden
from layerimp.blocks.forward import hidden_states
from layerimp.blocks.sites import find_taps
from layerimp.blocks.stream import Place
from layerimp.errors import ModelError
from layerimp.healing.gaps import is_norm, offset_of
from layerimp.healing.parameters import held_by, replace, trying

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack
    from layerimp.healer import Gap
    from layerimp.steps import Sublayer

TRIAL = 2.0
"""The factor of the test: a power of two, by which floating-point numbers are scaled without rounding."""
CLOSE = 0.01
"""The largest difference between the two outputs, relative to the largest value. The effect of the norms' eps is far
smaller; in a model that does not cancel the factor, the difference is of the order of 1."""
ROUNDINGS = 16
"""The largest difference in half precision, in roundings, if that is more."""


@dataclass(frozen=True)
class Factored:
    """A parameter that scales what is written into the stream.

    Attributes:
        path: The path of the parameter in the model.
        offset: The constant that is added to the parameter when it is used: 1 in norms that multiply by 1 + weight.
    """

    path: str
    offset: float = 0.0

    def scaled(self, value: Tensor, factor: float) -> Tensor:
        """Return the parameter's value for an output that is `factor` times as large, in float64."""
        return factor * (value.detach().double() + self.offset) - self.offset


def scale_stream(stack: BlockStack, gap: Gap, factor: float) -> None:
    """Multiply the residual stream from a gap on, by replacing parameters of later sublayers.

    Args:
        stack: The blocks of the pruned model.
        gap: The gap, with a sublayer after it.
        factor: A number above 0.

    Raises:
        ModelError: this cannot be done exactly in this model; the error says why. Nothing is changed.
    """
    _scale(stack, later_writers(stack, gap), 1 / factor)


def _scale(stack: BlockStack, parts: Sequence[Factored], factor: float) -> None:
    for part in parts:
        replace(stack.model, part.path, part.scaled(stack.model.get_parameter(part.path), factor))


def stream_scaled(stack: BlockStack, gap: Gap, factor: float) -> AbstractContextManager[None]:
    """A context in which a hook multiplies the residual stream at a gap, to try a factor without changing a weight."""
    return Place(stack, gap.position).changing(lambda stream: stream * factor)


def later_writers(stack: BlockStack, gap: Gap) -> list[Factored]:
    """Find the parameters that together scale everything written into the stream after a gap.

    Raises:
        ModelError: there are no such parameters, or scaling them does not have the effect of scaling the stream.
    """
    name = type(stack.model).__name__
    if gap.after is None:
        raise ModelError(f"{gap}: nothing but the final norm comes after, which cancels any factor")
    writers: list[Factored] = []
    for addition in _additions(stack, gap.position):
        factored = addition.factored()
        if not factored:
            raise ModelError(f"{name}: no set of weights scales what {addition.path} writes into the stream")
        writers += factored
    _refuse_shared(stack.model, [factored.path for factored in writers])
    with stream_scaled(stack, gap, TRIAL):
        expected = last_hidden(stack)
    with trying(stack.model):
        _scale(stack, writers, 1 / TRIAL)
        off = float((last_hidden(stack) - expected).abs().max() / expected.abs().max())
    if not off <= max(CLOSE, ROUNDINGS * torch.finfo(expected.dtype).eps):
        raise ModelError(
            f"{name} computes something else with its later writers scaled than with its stream scaled ({off:.1%} "
            "off): its norms do not cancel a factor of the whole stream"
        )
    return writers


def _refuse_shared(model: nn.Module, paths: Sequence[str]) -> None:
    """Refuse parameters that the model uses in more than one place."""
    places = Counter(id(parameter) for _, _, parameter in held_by(model))
    if shared := [path for path in paths if places[id(model.get_parameter(path))] > 1]:
        raise ModelError(
            f"{type(model).__name__} shares {shared[0]} with other places, and it cannot be scaled in one alone"
        )


@dataclass
class _Addition:
    """A module whose output is added to the stream, and one call of it on a few tokens.

    Attributes:
        path: The module's path in the model.
        module: The module.
        call: The arguments of the call.
        output: The output of the call.
    """

    path: str
    module: nn.Module
    call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    output: Tensor | None = None

    def factored(self) -> list[Factored]:
        """The last set of parameters that scale the module's output; empty if there is none."""
        parameters = dict(self.module.named_parameters())
        groups: dict[str, list[str]] = {}
        for path in parameters:
            groups.setdefault(_base(path), []).append(path)
        if is_norm(self.module):
            offset = offset_of(self.module)
            chosen = {name: Factored(f"{self.path}.{name}") for name in parameters}
            return (
                [] if offset is None else list((chosen | {"weight": Factored(f"{self.path}.weight", offset)}).values())
            )
        for names in reversed(groups.values()):
            if self._doubles({name: TRIAL * parameters[name].detach() for name in names}):
                return [Factored(f"{self.path}.{name}") for name in names]
        return []

    def _doubles(self, values: Mapping[str, Tensor]) -> bool:
        """Whether the module's output doubles with these values of its parameters."""
        assert self.output is not None
        args, kwargs = self.call
        with torch.no_grad():
            output = hidden_states(functional_call(self.module, dict(values), args, kwargs))
        return deviation(TRIAL * self.output, output) <= TOLERANCE


def _base(path: str) -> str:
    """Return the part of a name that the parameters of one map, or of the same map in every expert, have in common."""
    *_, owner, name = ["", *path.split(".")]
    return (owner if name in ("weight", "bias") else name).removesuffix("_bias")


def _additions(stack: BlockStack, position: Sublayer) -> list[_Addition]:
    """Find the modules that add to the stream from the sublayer at `position` on, in order."""
    additions: list[_Addition] = []
    taps = find_taps(stack)
    for index in range(position.block, len(stack)):
        sites = [site for site in ("attn_out", "mlp_out") if site in taps[index]]
        if len(sites) < 2:
            raise ModelError(f"it is not clear what block {index} of what is left adds to the residual stream")
        for site in sites[index == position.block and position.part == "mlp" :]:
            path = f"{stack.path}.{index}.{taps[index][site].path}"
            additions.append(_Addition(path, stack.model.get_submodule(path)))
    with ExitStack() as hooks:
        for addition in additions:
            hook = partial(_take, addition)
            hooks.callback(addition.module.register_forward_hook(hook, with_kwargs=True).remove)
        last_hidden(stack)
    return additions


def _take(addition: _Addition, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    addition.call, addition.output = (args, kwargs), hidden_states(output).clone()
