"""Records what units do on the forward pass, and the gradients that reach them on the backward pass."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, with_input
from layerimp.blocks.middle import in_mlp
from layerimp.errors import ModelError, NonFiniteError
from layerimp.steps import named
from layerimp.sweep.base import Drive, Series
from layerimp.sweep.recorder import Passing, Reader, Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn
    from torch.autograd.graph import Node

    from layerimp.blocks.stack import BlockStack
    from layerimp.sweep.units import Point, Unit

Owners = dict["nn.Parameter", dict[int, tuple[int, str]]]
"""For each parameter, by series, the position of the unit that it belongs to, and the parameter's name there."""


def owners_of(stack: BlockStack, drive: Drive) -> Owners:
    """Map the parameters with two dimensions or more to their units.

    If units of one series share a parameter, it belongs to the first of them.
    """
    owners: Owners = {}
    for which, series in enumerate(drive.series):
        for position, unit in enumerate(series.units):
            for name, parameter in _parameters(stack, unit, drive):
                owners.setdefault(parameter, {}).setdefault(which, (position, name))
    return owners


def _parameters(stack: BlockStack, unit: Unit, drive: Drive) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield a unit's parameters with two dimensions or more, by name."""
    blocks = sorted({sublayer.block for sublayer in unit.sublayers})
    for index in blocks:
        parts = {sublayer.part for sublayer in unit.sublayers if sublayer.block == index}
        for name, parameter in stack[index].named_parameters():
            if parameter.ndim < 2 or not parameter.is_floating_point():
                continue
            half = "mlp" if index in unit.divided and in_mlp(name, drive.halves[index].mlp) else "attn"
            if index not in unit.divided or half in parts:
                yield (name if len(blocks) == 1 else f"{index}.{name}"), parameter


class BackwardRecorder(Recorder["_Reader"]):
    """Keeps the activations of the forward pass, and emits a unit's trace once the gradient at its input is known.

    The memory that the trace held is then free.

    Args:
        stack: The model's blocks.
        drive: What the traces have to hold, and where they go.
    """

    def __init__(self, stack: BlockStack, drive: Drive) -> None:
        super().__init__(stack, drive, _Reader)
        self._model, self._middles = type(stack.model).__name__, drive.middles
        self._first = self.blocks[min(unit.begin.block for unit in drive.units)]
        self._nodes: dict[str, Node | None] = {}
        self._proved: set[int] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which the blocks are read; gradients begin at the input of the first block that is scored."""

        def enter(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # Autograd would serve a leaf before the parameters of this block, so the block's input must not be a leaf.
            leaf = block_input(args, kwargs).detach().requires_grad_()
            return with_input(args, kwargs, leaf.view_as(leaf))

        with self._first.register_forward_pre_hook(enter, with_kwargs=True), super().watching():
            yield

    def show(self, point: Point, hidden: Tensor) -> None:
        """Show the residual stream [batch, seq, hidden] at a place.

        Raises:
            ModelError: a path from a block's input bypasses its middle, so that the gradient there is incomplete.
        """
        super().show(point, hidden)
        index = point.block
        if index not in self._middles or index in self._proved:
            return
        if point.side != "output":
            self._nodes[point.side] = (hidden if point.side == "input" else source_of(hidden)).grad_fn
            return
        self._proved.add(index)
        if leads_past(hidden.grad_fn, self._nodes.pop("input"), self._nodes.pop("middle")):
            raise ModelError(
                f"the gradient between the attention and the MLP of block {index} of {self._model} cannot be told: "
                "the MLP adds to another tensor than it reads"
            )

    @contextmanager
    def taking_gradients(self, owners: Owners) -> Iterator[None]:
        """A context in which the gradients of parameters move into the traces of their units.

        Autograd computes them before the gradient at the unit's input.
        """

        def take(parameter: nn.Parameter) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            for which, (position, name) in owners[parameter].items():
                self.batch.readers[which].take_gradient(position, name, parameter, gradient)

        with ExitStack() as undo:
            for parameter in owners:
                undo.enter_context(parameter.register_post_accumulate_grad_hook(take))
            yield

    def check_gradients(self) -> None:
        """Check that every unit had a finite gradient.

        Raises:
            ModelError: a unit had no gradient.
            NonFiniteError: a gradient holds a NaN or an infinity.
        """
        for reader in self.batch.readers:
            reader.check()


def source_of(middle: Tensor) -> Tensor:
    """Return the tensor that a middle is a view of if both hold the same numbers, else the middle itself.

    Everything that is computed from the middle comes after that tensor in autograd's graph.
    """
    base = middle._base
    same = base is not None and base.numel() == middle.numel() and base.is_contiguous() and middle.is_contiguous()
    return base if base is not None and same else middle


def leads_past(end: Node | None, start: Node | None, middle: Node | None) -> bool:
    """Whether a path in autograd's graph leads from the node `start` to the node `end` and bypasses `middle`."""
    seen: set[Node] = set()
    following = [end]
    while following:
        node = following.pop()
        if node is None or node is middle or node in seen:
            continue
        if node is start:
            return True
        seen.add(node)
        following += [earlier for earlier, _ in node.next_functions]
    return False


class _Reader(Reader):
    """Reads the units of one series on the forward pass, and emits their traces on the backward pass."""

    def __init__(self, series: Series, batch: Passing[Any]) -> None:
        super().__init__(series, batch)
        self._acts: dict[int, dict[str, Tensor]] = {position: {} for position in range(len(series.units))}
        self._gradients: dict[int, dict[str, tuple[Tensor, Tensor]]] = {position: {} for position in self._acts}
        self._spreads: dict[int, Tensor] = {}

    def take(self, position: int, site: str, hidden: Tensor) -> None:
        self._acts[position][site] = hidden.detach()
        unit = self.series.units[position]
        if not hidden.requires_grad:
            end = "input" if site == "block_in" else "output"
            raise ModelError(f"no gradient flows back from the {end} of {named([unit.step])}")
        inside = (unit.begin if site == "block_in" else unit.end).side == "middle"
        source = source_of(hidden) if inside else hidden
        source.register_hook(partial(self._arrive, position, f"{site}_grad", hidden.shape))

    def _arrive(self, position: int, site: str, shape: torch.Size, gradient: Tensor) -> None:
        self._acts[position][site] = gradient if gradient.shape == shape else gradient.reshape(shape)
        if site != "block_in_grad" or not self.series.sites <= self._acts[position].keys():
            return
        self._spreads[position] = self.batch.spread(gradient)
        held, gradients = self._acts.pop(position), self._gradients.pop(position)
        before = range(max(0, position - self.series.lookback), position)
        inputs = {at: self._acts[at]["block_in"] for at in before}
        acts = {site: held[site] for site in self.series.sites}
        self.series.emit(self.trace(position, acts, inputs, gradient.device, gradients))

    def take_gradient(self, position: int, name: str, parameter: nn.Parameter, gradient: Tensor) -> None:
        if position not in self._gradients:
            where = named([self.series.units[position].step])
            raise ModelError(f"the gradient of {name} in {where} comes after that of the block's input")
        self._gradients[position][name] = (parameter.detach(), gradient)

    def check(self) -> None:
        units, device = self.series.units, self.batch.mask.device
        if self._acts:
            raise ModelError(f"no gradient reaches {named([units[max(self._acts)].step])}")
        finite = torch.stack([value.to(device) for value in self._spreads.values()]).isfinite()
        for position, good in zip(self._spreads, finite.tolist(), strict=True):
            if not good:
                where, number = named([units[position].step]), self.batch.number
                raise NonFiniteError(f"the gradient at {where} is a NaN or an infinity in batch {number}")
