"""Drives all batches through one block after another, so that a model is read from its files only once.

The forward pass of each batch runs in a separate coroutine, which stops wherever the model calls a block. While the
weights of that block are in memory, every batch in turn runs up to the next block. The model's own code runs unchanged,
with everything that it carries from block to block, so each number equals that of a pass batch by batch.
"""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from greenlet import getcurrent, greenlet

from layerimp.blocks.forward import run
from layerimp.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.sweep.base import Drive
    from layerimp.sweep.recorder import Recorder


class _Traveller:
    """One batch on its way through the blocks.

    Args:
        stack: The model's blocks.
        number: The batch's position in the calibration set.
        batch: The batch.
        recorder: Records the batch.

    Attributes:
        before: The block that the batch waits for; None at the end.
    """

    before: int | None

    def __init__(self, stack: BlockStack, number: int, batch: Batch, recorder: Recorder[Any]) -> None:
        recorder.begin(number, batch["attention_mask"].bool())
        self._recorder, self._recorded = recorder, recorder.batch
        self._pass = greenlet(partial(run, stack.backbone, batch))
        self._pass.gr_context = copy_context()  # a model may store values there while it runs
        self.go_on()
        if self.before is None:
            recorder.check()  # no block was called

    def go_on(self) -> None:
        """Run until the next call of a block, or to the end."""
        self._recorder.batch = self._recorded
        at = self._pass.switch()
        self.before = None if self._pass.dead else at

    def stop(self) -> None:
        """Abort a pass in progress."""
        if not self._pass.dead:
            self._pass.throw()


def block_by_block(stack: BlockStack, batches: Iterable[Batch], recorder: Recorder[Any], drive: Drive) -> None:
    """Run all batches through an offloaded model, each block for all batches before the next block.

    A block that a model runs several times is also read several times.

    Args:
        stack: The model's blocks.
        batches: The calibration set.
        recorder: Records each batch.
        drive: Is told when a block or a batch is through; batches end in order.
    """
    driver, before = getcurrent(), _modes()

    def arrive(index: int, _block: nn.Module, _args: Any) -> None:
        if _modes() != before:  # a mode that is on while another batch runs would also affect that batch
            raise ModelError(
                f"{type(stack.model).__name__} runs its blocks inside a mode of torch such as autocast, so that it "
                "cannot be offloaded: --no-offload loads the whole model"
            )
        driver.switch(index)

    travellers: list[_Traveller] = []
    with ExitStack() as undo:
        for at, block in enumerate(stack):
            undo.enter_context(block.register_forward_pre_hook(partial(arrive, at), prepend=True))
        try:
            for number, batch in enumerate(batches):
                travellers.append(_Traveller(stack, number, batch, recorder))
            while (index := _next_block(travellers)) is not None:
                here = [traveller for traveller in travellers if traveller.before == index]
                with stack.held(index, then=index + 1 if index + 1 < len(stack) else None):
                    for traveller in here:
                        traveller.go_on()
                        recorder.check()
                        if traveller.before is None:
                            drive.end_batch()
                drive.end_block()
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
