"""Batches that fit the memory: bounded before they run, and halved when it runs out all the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size

from layerimp.errors import TaskError
from layerimp_harness.lm_eval_names import clear_torch_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_COPIES = 3  # the logits, their log-softmax or what a model makes to scale them, and one more within it
_BYTES = 4


class Batches:
    """Cuts work into batches.

    Args:
        most: The most rows in a batch.
        device: Where the model is.
    """

    def __init__(self, most: int, device: torch.device) -> None:
        self._rows = most
        self._device = device

    @property
    def most(self) -> int:
        """The most rows that a batch may have."""
        return self._rows

    def run(self, items: Sequence[T], call: Callable[[Sequence[T], int], None], size: Callable[[T], int]) -> None:
        """Call `call` on slices of `items`, one after the other.

        Args:
            items: What the batches are made of, the largest first, so that memory runs out early.
            call: Works on one batch, in forwards of at most as many rows as its second argument says; called again
                with fewer if it ran out of memory.
            size: How many bytes a row of an item needs beside the weights.

        Raises:
            TaskError: not even one row fits into memory.
        """
        done = 0
        while done < len(items):
            rows = min(self._rows, self._affordable(size(items[done])))
            batch = items[done : done + rows]
            try:
                call(batch, rows)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if rows == 1:
                    raise TaskError("one sequence does not fit into memory; a lower max_length helps") from error
                self._rows = rows // 2
            else:
                done += len(batch)
                continue
            clear_torch_cache()  # only here, where the traceback no longer holds the tensors

    def _affordable(self, size: int) -> int:
        """How many rows of so many bytes fit into half of the free memory.

        On a CPU the system kills a process that takes too much, and raises nothing. A power of two, so that a
        little more or less free memory makes the same batches.
        """
        if self._device.type != "cpu" or size == 0:
            return self._rows
        return int(2 ** int(math.log2(max(1, psutil.virtual_memory().available // 2 // size))))


def logits_bytes(positions: int, vocabulary: int) -> int:
    """How many bytes the logits of so many positions take, with the copies that are made of them."""
    return positions * vocabulary * _BYTES * _COPIES


def _out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)
