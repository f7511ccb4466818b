"""Batches that fit into memory: limited in advance, and halved if memory runs out nevertheless."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size

from layerimp.errors import TaskError
from layerimp_harness.lm_eval_names import clear_torch_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_COPIES = 3  # the logits, their log-softmax or a model's rescaled copy, and a temporary copy within either
_BYTES = 4
_TOKENS = 512
"""The tokens of a forward on a CPU, unless a single row has more. What is computed of more than these does not stay in
the processor's cache: with twice as many, a token of SmolLM2 takes 15 % longer."""
_PADDING = 20
"""The tokens of padding in a batch that take as long on a CPU as another forward, which reads all weights again."""


class Batches:
    """Splits work into batches.

    Args:
        most: The maximum number of rows in a batch.
        device: The model's device.

    Attributes:
        most: The maximum number of rows in a batch; lower after memory ran out.
    """

    def __init__(self, most: int, device: torch.device) -> None:
        self.most = most
        self._device = device

    def run(
        self,
        items: Sequence[T],
        call: Callable[[Sequence[T]], None],
        size: Callable[[T], int],
        length: Callable[[T], int] | None = None,
    ) -> None:
        """Call `call` on slices of `items`, one after the other.

        Args:
            items: The items to split into batches, the largest first, so that memory runs out early if at all.
            call: Processes one batch. If it runs out of memory, the call is repeated with fewer items.
            size: Returns the number of bytes that a row of an item needs besides the weights.
            length: Returns the number of tokens of an item, if all items of a batch are padded to the first. A CPU then
                gets no more items in a batch than stay in its cache, and padding is cheap for.

        Raises:
            TaskError: not even one row fits into memory.
        """
        done = 0
        while done < len(items):
            rows = min(self.most, self._affordable(size(items[done])))
            batch = items[done : done + rows]
            if length is not None and self._device.type == "cpu":
                batch = batch[: _alike([length(item) for item in batch])]
                rows = len(batch)
            try:
                call(batch)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if rows == 1:
                    raise TaskError("one sequence does not fit into memory; a lower max_length helps") from error
                self.most = rows // 2
            else:
                done += len(batch)
                continue
            clear_torch_cache()  # only here, where the traceback no longer holds the tensors

    def _affordable(self, size: int) -> int:
        """Return how many rows of `size` bytes fit into half of the free memory.

        The limit is needed on a CPU, where the system kills a process that takes too much memory instead of raising an
        error. The number is a power of two, so that small changes of the free memory give the same batches.
        """
        if self._device.type != "cpu" or size == 0:
            return self.most
        return int(2 ** int(math.log2(max(1, psutil.virtual_memory().available // 2 // size))))


def _alike(lengths: Sequence[int]) -> int:
    """Return how many of the items, from the first on, are few tokens, and padded with few in all."""
    padding = accumulate(lengths[0] - length for length in lengths)
    return max(1, min(sum(tokens <= _PADDING for tokens in padding), _TOKENS // lengths[0]))


def logits_bytes(positions: int, vocabulary: int) -> int:
    """Return how many bytes the logits of that many positions take, including temporary copies."""
    return positions * vocabulary * _BYTES * _COPIES


def _out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)
