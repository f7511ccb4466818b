"""Keeps the outputs of blocks, so that a pass in which only later blocks changed starts at the first of these."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from layerimp.blocks.forward import giving_back, hidden_states
from layerimp.blocks.memory import free_bytes
from layerimp.errors import ModelError, NonFiniteError
from layerimp.steps import Step, Sublayer, left, removed_by
from layerimp.sweep.replay import Replay
from layerimp.sweep.units import Point, Show
from layerimp.sweep.watching import watching

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from layerimp.blocks.middle import Halves
    from layerimp.blocks.stack import BlockStack

LIMIT = 1 << 30
"""The largest size of a cache in bytes. A cache also takes no more than a quarter of the free memory."""


class _Known(NamedTuple):
    """A block's output, and the hidden states in its middle if these were read."""

    output: Any
    middle: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return hidden_states(self.output).nbytes + (0 if self.middle is None else self.middle.nbytes)


class BlockCache:
    """The outputs of blocks on one calibration set with some blocks bypassed, as far as memory allows.

    A removal changes nothing before the removed block. In the next pass the blocks before it return their stored
    outputs; the other blocks are computed, and their new outputs stored. If the middle of a block is read, it is stored
    as well, and the block is skipped only if its middle is known. Nothing is stored for a model whose blocks cannot be
    run separately.

    Args:
        stack: The model's blocks.

    Attributes:
        apart: Whether it was verified that the blocks read nothing of one another but the hidden states.
    """

    def __init__(self, stack: BlockStack) -> None:
        self._stack = stack
        self._room = min(LIMIT, _free(stack) // 4)
        self._known: dict[int, dict[int, _Known]] = {}
        self._removed: frozenset[Sublayer] = frozenset()
        self._left = set(range(len(stack)))
        self._tried = False
        self.apart = False

    def begin(self, removed: Sequence[Step]) -> None:
        """Prepare for passes with the steps `removed` bypassed: drop all outputs that this changes."""
        if self._room and not self._tried:
            self._tried = True
            with suppress(ModelError, NonFiniteError), torch.inference_mode():
                Replay(self._stack, self._stack.backbone, range(len(self._stack)))
                self.apart = True
        now = removed_by(removed)
        first = min((block for block, _ in self._removed ^ now), default=len(self._stack))
        self._removed, self._left = now, {block for block, _ in left(removed, len(self._stack))}
        self.forget_from(first)

    def forget_from(self, first: int) -> None:
        """Drop the outputs of the block `first` and of all later blocks."""
        for blocks in self._known.values():
            for index in [index for index in blocks if index >= first]:
                self._room += blocks.pop(index).nbytes

    def keep_last(self, number: int, count: int) -> None:
        """Drop all but the last `count` outputs of a batch; the earlier blocks need not run as long as one is left."""
        known = self._known.get(number, {})
        for index in sorted(known)[:-count]:
            self._room += known.pop(index).nbytes

    @contextmanager
    def batch(
        self,
        number: int,
        halves: Mapping[int, Halves] = MappingProxyType({}),
        show: Show = lambda _point, _hidden: None,
    ) -> Iterator[None]:
        """A context in which the backbone runs one batch without computing the blocks whose outputs are known.

        Args:
            number: The batch's position in the calibration set.
            halves: The halves of the blocks whose middle is read, by index.
            show: Takes the middles of the blocks that are not computed.
        """
        known = self._known.setdefault(number, {})
        enough = {at: kept for at, kept in known.items() if at not in halves or kept.middle is not None}
        if known and not halves:  # before the first known output, what blocks put out is of no effect
            first = min(known)
            enough |= {at: known[first] for at in self._left if at < first}
        computed = {at: self._stack[at] for at in self._left if at not in enough}
        last: dict[str, Tensor] = {}

        def see(point: Point, hidden: Tensor) -> None:
            last[point.side] = hidden

        def remember(index: int, output: Any) -> None:
            new = _Known(output, last.pop("middle", None))
            room = self._room + (known[index].nbytes if index in known else 0)
            if self.apart and new.nbytes <= room:
                known[index] = new
                self._room = room - new.nbytes

        def show_middle(at: int, *_call: Any) -> None:
            if (middle := enough[at].middle) is not None:
                show(Point(at, "middle"), middle)

        with ExitStack() as undo:
            for at in enough.keys() & halves.keys():
                undo.enter_context(self._stack[at].register_forward_pre_hook(partial(show_middle, at)))
            undo.enter_context(giving_back({self._stack[at]: kept.output for at, kept in enough.items()}))
            undo.enter_context(watching(computed, halves, see, remember))
            yield


def _free(stack: BlockStack) -> int:
    """The free memory in bytes on the fullest of the model's devices."""
    return min(free_bytes(device) for device in {parameter.device for parameter in stack.model.parameters()})
