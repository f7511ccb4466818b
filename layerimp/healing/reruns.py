"""Runs a model again on the same text, from the first block that has changed since its last run."""

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
    """Stores the outputs of a model's blocks for some batches, as long as the model is unchanged up to these blocks.

    A healer measures the loss after each value that it tries at a gap, and the blocks before the gap need not run each
    time. A block counts as changed if a parameter was replaced or written into, or if a hook was added or removed.

    Where a run ends early, as at a gap, only the last outputs are stored: enough to go on after a change of the block
    before the gap. So healing from the first gap to the last runs each block once, and stores two streams.

    Args:
        stack: The model's blocks.
        batches: The text that is run repeatedly. Nothing is stored for other text.
    """

    def __init__(self, stack: BlockStack, batches: Sequence[Batch]) -> None:
        self._stack = stack
        self._batches = {id(batch): batch for batch in batches}
        self._cache = BlockCache(stack)
        self._cache.begin(())
        self._look()

    @contextmanager
    def of(self, batch: Batch) -> Iterator[None]:
        """A context in which the model runs a batch without the blocks before the first one that has changed."""
        if id(batch) not in self._batches:
            yield
            return
        before = self._seen
        self._look()
        changed = [self._block_of(path) for _, path in before.changes(self._seen)]
        self._cache.forget_from(min(changed, default=len(self._stack)))
        try:
            with self._cache.batch(id(batch)):
                yield
        except BaseException:
            self._cache.keep_last(id(batch), 2)
            raise

    def _look(self) -> None:
        """Note the model's state. References to parameters are kept, so that no new one can reuse an old address."""
        self._seen = Snapshot.of(self._stack.model)
        self._kept = held_by(self._stack.model)

    def _block_of(self, path: str) -> int:
        """Return the block that a path leads into; the first block for other paths, which may affect all blocks."""
        inside, _, rest = path.partition(f"{self._stack.path}.")
        return int(rest.partition(".")[0]) if rest and not inside else 0
