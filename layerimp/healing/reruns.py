"""Runs a model again on the same text, from the first block that has changed since it last did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerimp.blocks.snapshot import Snapshot
from layerimp.healing.parameters import held_by
from layerimp.sweep.cache import BlockCache

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch, BlockStack


class Reruns:
    """Remembers what a model's blocks put out for batches, for as long as the model is the same up to there.

    A healer measures the loss after each value that it tries at a gap; what lies before the gap need not be computed
    each time. A block has changed where a parameter was replaced or written into, or where a hook came or went.

    Args:
        stack: The model's blocks.
        batches: The text that is run again and again. Of other text nothing is remembered.
    """

    def __init__(self, stack: BlockStack, batches: Sequence[Batch]) -> None:
        self._stack = stack
        self._batches = {id(batch): batch for batch in batches}
        self._cache = BlockCache(stack)
        self._cache.begin(())
        self._look()

    @contextmanager
    def of(self, batch: Batch) -> Iterator[None]:
        """Let the model run a batch inside this without the blocks before the first one that has changed."""
        if id(batch) not in self._batches:
            yield
            return
        before = self._seen
        self._look()
        self._cache.forget_from(min(map(self._block_of, before.changed(self._seen)), default=len(self._stack)))
        with self._cache.batch(id(batch)):
            yield

    def _look(self) -> None:
        """See what the model is now; parameters are kept, so that no new one is taken for an old one at its address."""
        self._seen = Snapshot.of(self._stack.model)
        self._kept = held_by(self._stack.model)

    def _block_of(self, path: str) -> int:
        """The block that a path leads into; the first where it leads into none, since that may act on all of them."""
        inside, _, rest = path.partition(f"{self._stack.path}.")
        return int(rest.partition(".")[0]) if rest and not inside else 0
