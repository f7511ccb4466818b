"""Remembers what blocks put out, so that a pass in which only later blocks changed starts where they begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from layerimp.blocks.forward import giving_back, hidden_states
from layerimp.blocks.memory import free_bytes
from layerimp.blocks.middle import watching_middle
from layerimp.errors import ModelError, NonFiniteError
from layerimp.steps import Step, Sublayer, removed_by
from layerimp.sweep.replay import Replay, Show

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from layerimp.blocks.middle import Halves
    from layerimp.blocks.stack import BlockStack

LIMIT = 1 << 30
"""Bytes that a cache takes at most; and no more than a quarter of what is free."""


class _Known(NamedTuple):
    """What a block put out, and what lay in its middle, if that was looked at."""

    output: Any
    middle: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return hidden_states(self.output).nbytes + (0 if self.middle is None else self.middle.nbytes)


class BlockCache:
    """What the blocks put out on one calibration set with some of them bypassed, as far as memory allows.

    A removal changes nothing before the removed block. What lies before it is given back in the next pass; the rest
    is computed, and remembered in its place. Nothing is remembered of a model whose blocks cannot be run apart. Where
    the middle of a block is looked at, it is remembered as well, and a block is given back if its middle is known.

    Args:
        stack: The model's blocks.
        limit: Bytes to take at most; None for `LIMIT`, or less where memory is short.

    Attributes:
        apart: Whether the blocks are proved to read nothing of one another but the hidden states.
    """

    def __init__(self, stack: BlockStack, limit: int | None = None) -> None:
        self._stack = stack
        self._room = min(LIMIT, _free(stack) // 4) if limit is None else limit
        self._known: dict[int, dict[int, _Known]] = {}
        self._removed: frozenset[Sublayer] = frozenset()
        self._tried = False
        self.apart = False

    def begin(self, removed: Sequence[Step]) -> None:
        """Get ready for passes with the steps `removed` bypassed: forget all that this changes."""
        if self._room and not self._tried:
            self._tried = True
            with suppress(ModelError, NonFiniteError), torch.inference_mode():
                Replay(self._stack, self._stack.backbone, range(len(self._stack)))
                self.apart = True
        gone = removed_by(removed)
        first = min((block for block, _ in self._removed ^ gone), default=len(self._stack))
        self._removed = gone
        self.forget_from(first)

    def forget_from(self, first: int) -> None:
        """Forget what the block `first` and those after it put out."""
        for blocks in self._known.values():
            for index in [index for index in blocks if index >= first]:
                self._room += blocks.pop(index).nbytes

    @contextmanager
    def batch(
        self, number: int, halves: Mapping[int, Halves] = MappingProxyType({}), show: Show | None = None
    ) -> Iterator[None]:
        """Run one batch, known by its `number`, through the backbone inside this: known blocks are not computed.

        Args:
            number: The batch.
            halves: The halves of the blocks whose middle is looked at, by index.
            show: What looks at the middle of a block that is not computed; it gets the index and the middle [batch,
                seq, hidden].
        """
        known = self._known.setdefault(number, {})
        given: dict[nn.Module, Any] = {}
        first: dict[nn.Module, Callable[[], None]] = {}
        for index, one in known.items():
            if index not in halves or one.middle is not None:
                given[self._stack[index]] = one.output
            if index in halves and show is not None and one.middle is not None:
                first[self._stack[index]] = partial(show, index, one.middle)
        with ExitStack() as undo:
            undo.enter_context(giving_back(given, first))
            for index, block in enumerate(self._stack):
                if block in given or {Sublayer(index, "attn"), Sublayer(index, "mlp")} <= self._removed:
                    continue
                middles: list[Tensor] = []
                if index in halves:
                    undo.enter_context(watching_middle(block, halves[index], middles.append))
                remember = partial(self._remember, known, index, middles)
                undo.callback(block.register_forward_hook(remember).remove)
            yield

    def _remember(
        self, known: dict[int, _Known], index: int, middles: list[Tensor], _block: nn.Module, _args: Any, output: Any
    ) -> None:
        new = _Known(output, middles.pop() if middles else None)
        room = self._room + (known[index].nbytes if index in known else 0)
        if self.apart and new.nbytes <= room:
            known[index] = new
            self._room = room - new.nbytes


def _free(stack: BlockStack) -> int:
    """Bytes that are free on the fullest of the model's devices."""
    return min(free_bytes(device) for device in {parameter.device for parameter in stack.model.parameters()})


def remembered(
    cache: BlockCache | None,
    number: int,
    halves: Mapping[int, Halves] = MappingProxyType({}),
    show: Show | None = None,
) -> AbstractContextManager[None]:
    """`cache.batch`, or nothing where there is no cache."""
    return nullcontext() if cache is None else cache.batch(number, halves, show)
