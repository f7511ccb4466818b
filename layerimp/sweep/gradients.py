"""Records what blocks do on the forward pass, and the gradients that reach them on the backward pass."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, with_input
from layerimp.errors import ModelError, NonFiniteError
from layerimp.sweep.base import Drive
from layerimp.sweep.recorder import Reader, Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

Owners = dict["nn.Parameter", tuple[int, str]]
"""For each parameter, the position of the block that it belongs to, and the parameter's name there."""


def owners_of(stack: BlockStack, drive: Drive) -> Owners:
    """Map the parameters with two dimensions or more to their blocks; a shared one belongs to the first of them."""
    owners: Owners = {}
    for position, index in enumerate(drive.blocks):
        for name, parameter in stack[index].named_parameters():
            if parameter.ndim >= 2 and parameter.is_floating_point():
                owners.setdefault(parameter, (position, name))
    return owners


class BackwardRecorder(Recorder["_Reader"]):
    """Keeps the activations of the forward pass, and emits a block's trace once the gradient at its input is known.

    The memory that the trace held is then free.

    Args:
        stack: The model's blocks.
        drive: What the traces have to hold, and where they go.
    """

    def __init__(self, stack: BlockStack, drive: Drive) -> None:
        super().__init__(stack, drive, _Reader)
        self._first = self.blocks[min(drive.blocks)]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which the blocks are read; gradients begin at the input of the first block that is scored."""

        def enter(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            # Autograd would serve a leaf before the parameters of this block, so the block's input must not be a leaf.
            leaf = block_input(args, kwargs).detach().requires_grad_()
            return with_input(args, kwargs, leaf.view_as(leaf))

        with self._first.register_forward_pre_hook(enter, with_kwargs=True), super().watching():
            yield

    @contextmanager
    def taking_gradients(self, owners: Owners) -> Iterator[None]:
        """A context in which the gradients of parameters move into the traces of their blocks.

        Autograd computes them before the gradient at the block's input.
        """

        def take(parameter: nn.Parameter) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            self.batch.take_gradient(*owners[parameter], parameter, gradient)

        with ExitStack() as undo:
            for parameter in owners:
                undo.enter_context(parameter.register_post_accumulate_grad_hook(take))
            yield


class _Reader(Reader):
    """Reads the blocks on the forward pass, and emits their traces on the backward pass."""

    def __init__(self, drive: Drive, number: int, mask: Tensor) -> None:
        super().__init__(drive, number, mask)
        self._acts: dict[int, dict[str, Tensor]] = {position: {} for position in range(len(drive.blocks))}
        self._gradients: dict[int, dict[str, tuple[Tensor, Tensor]]] = {position: {} for position in self._acts}
        self._spreads_of_gradients: dict[int, Tensor] = {}

    def take(self, position: int, site: str, hidden: Tensor) -> None:
        self._acts[position][site] = hidden.detach()
        if not hidden.requires_grad:
            end = "input" if site == "block_in" else "output"
            raise ModelError(f"no gradient flows back from the {end} of block {self.drive.blocks[position]}")
        hidden.register_hook(partial(self._arrive, position, f"{site}_grad"))

    def _arrive(self, position: int, site: str, gradient: Tensor) -> None:
        self._acts[position][site] = gradient
        if site != "block_in_grad" or not self.drive.sites <= self._acts[position].keys():
            return
        self._spreads_of_gradients[position] = self.spread(gradient)
        held, gradients = self._acts.pop(position), self._gradients.pop(position)
        before = range(max(0, position - self.drive.lookback), position)
        inputs = {at: self._acts[at]["block_in"] for at in before}
        acts = {site: held[site] for site in self.drive.sites}
        self.drive.emit(self.trace(position, acts, inputs, gradient.device, gradients))

    def take_gradient(self, position: int, name: str, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Take the gradient of a parameter of the block at a position."""
        if position not in self._gradients:
            where = f"block {self.drive.blocks[position]}"
            raise ModelError(f"the gradient of {name} in {where} comes after that of the block's input")
        self._gradients[position][name] = (parameter.detach(), gradient)

    def check_gradients(self) -> None:
        """Check that every block had a finite gradient.

        Raises:
            ModelError: a block had no gradient.
            NonFiniteError: a gradient holds a NaN or an infinity.
        """
        if self._acts:
            raise ModelError(f"no gradient reaches block {self.drive.blocks[max(self._acts)]}")
        finite = torch.stack([value.to(self.mask.device) for value in self._spreads_of_gradients.values()]).isfinite()
        for position, good in zip(self._spreads_of_gradients, finite.tolist(), strict=True):
            if not good:
                where = f"block {self.drive.blocks[position]}"
                raise NonFiniteError(f"the gradient at {where} is a NaN or an infinity in batch {self.number}")
