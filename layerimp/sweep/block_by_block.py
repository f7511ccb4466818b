"""Drives all batches through one block after another, so that a model is read from its files only once.

The forward pass of each batch runs in a separate coroutine, which stops wherever the model calls a block. While the
weights of that block are in memory, every batch in turn runs up to the next block. The model's own code runs unchanged,
with everything that it carries from block to block, so each number equals that of a pass batch by batch.
"""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from greenlet import getcurrent, greenlet

from layerimp.blocks.forward import block_input, run
from layerimp.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from layerimp.blocks.stack import Batch, BlockStack


class Course(Protocol):
    """Receives the events of each batch during its pass."""

    def begin(self, number: int, batch: Batch) -> None:
        """Begin a batch."""

    def check(self, number: int) -> None:
        """Check the outputs of blocks so far for the current batch.

        Raises:
            NonFiniteError: an output holds a NaN or an infinity.
        """

    def end(self) -> None:
        """End the current batch."""

    def left(self) -> Callable[[], None]:
        """Suspend the current batch, and return a function to call before it continues."""


class _Traveller:
    """One batch on its way through the blocks.

    Args:
        stack: The model's blocks.
        number: The batch's position in the calibration set.
        batch: The batch.
        course: Receives the events of the batch.

    Attributes:
        before: The block that the batch waits for; None at the end.
    """

    def __init__(self, stack: BlockStack, number: int, batch: Batch, course: Course) -> None:
        self.number, self._course = number, course
        self._pass = greenlet(partial(run, stack.backbone, batch))
        self._pass.gr_context = copy_context()  # a model may store values there while it runs
        course.begin(number, batch)
        self._go()

    def go_on(self) -> None:
        """Run until the next call of a block, or to the end."""
        self._resume()
        self._go()
        self._course.check(self.number)
        if self.before is None:
            self._course.end()

    def _go(self) -> None:
        at = self._pass.switch()
        self.before: int | None = None if self._pass.dead else at
        self._resume = self._course.left()

    def stop(self) -> None:
        """Abort a pass in progress."""
        if not self._pass.dead:
            self._pass.throw()


def block_by_block(stack: BlockStack, batches: Iterable[Batch], course: Course, end_block: Callable[[], None]) -> None:
    """Run all batches through an offloaded model, each block for all batches before the next block.

    A block that a model runs several times is also read several times.

    Args:
        stack: The model's blocks.
        batches: The calibration set.
        course: Receives the events of each batch; batches end in order.
        end_block: Called when all batches have passed through a block.
    """
    driver, before = getcurrent(), _modes()

    def arrive(index: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _modes() != before:  # a mode that is on while another batch runs would also affect that batch
            raise ModelError(
                f"{type(stack.model).__name__} runs its blocks inside a mode of torch such as autocast, so that it "
                "cannot be offloaded: --no-offload loads the whole model"
            )
        hidden = block_input(args, kwargs)
        stack.set_aside(hidden)
        driver.switch(index)
        stack.bring_back(hidden)

    travellers: list[_Traveller] = []
    with ExitStack() as undo:
        for at, block in enumerate(stack):
            hook = block.register_forward_pre_hook(partial(arrive, at), prepend=True, with_kwargs=True)
            undo.callback(hook.remove)
        try:
            for number, batch in enumerate(batches):
                travellers.append(_Traveller(stack, number, batch, course))
                if travellers[-1].before is None:  # no block was called
                    course.check(number)
            while (index := _next_block(travellers)) is not None:
                here = [traveller for traveller in travellers if traveller.before == index]
                with stack.held(index, then=index + 1 if index + 1 < len(stack) else None):
                    for traveller in here:
                        traveller.go_on()
                end_block()
        finally:
            for traveller in reversed(travellers):
                traveller.stop()


def _next_block(travellers: Iterable[_Traveller]) -> int | None:
    """Return the block that the first unfinished batch waits for; None if all batches are finished."""
    return next((traveller.before for traveller in travellers if traveller.before is not None), None)


def _modes() -> tuple[bool, ...]:
    """Return the modes of torch that apply to a whole thread."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )
