"""Drives all batches through one block after another, so that a model is read from its files only once.

The forward pass of each batch runs in a coroutine of its own, which stops wherever the model calls a block. While the
weights of that block are in memory, every batch in turn goes on to the next one. The model's own code runs as it is,
with all that it carries from block to block, so that each number is the one that a pass batch by batch computes.
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
    """What has to be known of each batch on its way."""

    def begin(self, number: int, batch: Batch) -> None:
        """A batch begins."""

    def check(self, number: int) -> None:
        """Look at what the blocks put out so far for the batch at hand.

        Raises:
            NonFiniteError: it holds a NaN or an infinity.
        """

    def end(self) -> None:
        """The batch at hand is through."""

    def left(self) -> Callable[[], None]:
        """Another batch goes on in place of this one: what is to be called before this one goes on."""


class _Traveller:
    """One batch on its way through the blocks.

    Args:
        stack: The model's blocks.
        number: The batch's position in the calibration set.
        batch: The batch.
        course: What has to be known of it.

    Attributes:
        before: The block that it stands before; None when it is through.
    """

    def __init__(self, stack: BlockStack, number: int, batch: Batch, course: Course) -> None:
        self.number, self._course = number, course
        self._pass = greenlet(partial(run, stack.backbone, batch))
        self._pass.gr_context = copy_context()  # a model may keep things there while it runs
        course.begin(number, batch)
        self._go()

    def go_on(self) -> None:
        """Run until the next block is called, or to the end."""
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
        """End a pass that is under way."""
        if not self._pass.dead:
            self._pass.throw()


def block_by_block(stack: BlockStack, batches: Iterable[Batch], course: Course, end_block: Callable[[], None]) -> None:
    """Run all batches through a streamed model, each block for all batches before the next one.

    A block that a model runs several times is read as often.

    Args:
        stack: The model's blocks.
        batches: The calibration set.
        course: What has to be known of each batch; the batches end in their order.
        end_block: Called when all batches have passed through a block.
    """
    driver, before = getcurrent(), _modes()

    def arrive(index: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _modes() != before:  # a mode that is on while another batch runs would hold for that one as well
            raise ModelError(
                f"{type(stack.model).__name__} runs its blocks inside a mode of torch such as autocast, so that it "
                "cannot be streamed: --no-stream loads the whole model"
            )
        stack.set_aside(block_input(args, kwargs))
        driver.switch(index)

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
                here = [one for one in travellers if one.before == index]
                with stack.held(index, then=index + 1 if index + 1 < len(stack) else None):
                    for one in here:
                        one.go_on()
                end_block()
        finally:
            for one in reversed(travellers):
                one.stop()


def _next_block(travellers: Iterable[_Traveller]) -> int | None:
    """The block that the first batch waits for that is under way; None where all are through."""
    return next((one.before for one in travellers if one.before is not None), None)


def _modes() -> tuple[bool, ...]:
    """The modes of torch that hold for a whole thread."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
    )
