"""Keeps the outputs of blocks, so that a pass in which only later blocks changed starts at the first of these."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import giving_back, hidden_states
from layerimp.blocks.memory import free_bytes
from layerimp.errors import ModelError, NonFiniteError
from layerimp.sweep.replay import Replay
from layerimp.sweep.watching import watching

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from layerimp.blocks.stack import BlockStack

LIMIT = 1 << 30
"""The largest size of a cache in bytes. A cache also takes no more than a quarter of the free memory."""


class BlockCache:
    """The outputs of blocks on one calibration set with some blocks bypassed, as far as memory allows.

    A removal changes nothing before the removed block. In the next pass the blocks before it return their stored
    outputs; the other blocks are computed, and their new outputs stored. Nothing is stored for a model whose blocks
    cannot be run separately.

    Args:
        stack: The model's blocks.

    Attributes:
        apart: Whether it was verified that the blocks read nothing of one another but the hidden states.
    """

    def __init__(self, stack: BlockStack) -> None:
        self._stack = stack
        self._room = min(LIMIT, _free(stack) // 4)
        self._known: dict[int, dict[int, Any]] = {}
        self._removed: frozenset[int] = frozenset()
        self._tried = False
        self.apart = False

    def begin(self, removed: Collection[int]) -> None:
        """Prepare for passes with the blocks `removed` bypassed: drop all outputs that this changes."""
        if self._room and not self._tried:
            self._tried = True
            with suppress(ModelError, NonFiniteError), torch.inference_mode():
                Replay(self._stack, self._stack.backbone, range(len(self._stack)))
                self.apart = True
        before, self._removed = self._removed, frozenset(removed)
        self.forget_from(min(before ^ self._removed, default=len(self._stack)))

    def forget_from(self, first: int) -> None:
        """Drop the outputs of the block `first` and of all later blocks."""
        for outputs in self._known.values():
            for index in [index for index in outputs if index >= first]:
                self._room += _bytes(outputs.pop(index))

    def keep_last(self, number: int, count: int) -> None:
        """Drop all but the last `count` outputs of a batch; the earlier blocks need not run as long as one is left."""
        known = self._known.get(number, {})
        for index in sorted(known)[:-count]:
            self._room += _bytes(known.pop(index))

    @contextmanager
    def batch(self, number: int) -> Iterator[None]:
        """A context in which the backbone runs one batch without computing the blocks whose outputs are known.

        Args:
            number: The batch's position in the calibration set.
        """
        known = self._known.setdefault(number, {})
        first = min(known, default=0)  # before the first known output, what blocks put out is of no effect
        left = [index for index in range(len(self._stack)) if index not in self._removed]
        given = {index: known[max(index, first)] for index in left if index in known or index < first}
        computed = {index: self._stack[index] for index in left if index not in given}

        def remember(index: int, output: Any) -> None:
            room = self._room + (_bytes(known[index]) if index in known else 0)
            if self.apart and _bytes(output) <= room:
                known[index] = output
                self._room = room - _bytes(output)

        outputs = {self._stack[index]: output for index, output in given.items()}
        with giving_back(outputs), watching(computed, put_out=remember):
            yield


def _bytes(output: Any) -> int:
    """The size of the hidden states in a block's output."""
    return hidden_states(output).nbytes


def _free(stack: BlockStack) -> int:
    """The free memory in bytes on the fullest of the model's devices."""
    return min(free_bytes(device) for device in {parameter.device for parameter in stack.model.parameters()})
