"""Batches that fit the memory: bounded before they run, and halved when it runs out all the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size
from lm_eval.models.utils_hf import clear_torch_cache

from layerimp.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

_COPIES = 3  # the logits, their log-softmax, and one more within it
_BYTES = 4


class Batches:
    """Cuts work into batches.

    Args:
        most: The most rows in a batch.
        device: Where the model is.
        vocabulary: How many logits a token has.
    """

    def __init__(self, most: int, device: torch.device, vocabulary: int) -> None:
        self._rows = most
        self._device = device
        self._vocabulary = vocabulary

    def run(self, items: Sequence[T], call: Callable[[Sequence[T]], None], length: Callable[[T], int]) -> None:
        """Call `call` on slices of `items`, one after the other.

        Args:
            items: Rows, the longest first, so that memory runs out early.
            call: Works on one batch; called again with a shorter one if it ran out of memory.
            length: How many tokens of a row have logits at the same time.

        Raises:
            TaskError: one row alone is too much.
        """
        done = 0
        while done < len(items):
            rows = min(self._rows, self._affordable(length(items[done])))
            try:
                call(items[done : done + rows])
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if rows == 1:
                    raise TaskError("one sequence is too much for the memory; a lower max_length helps") from error
                self._rows = rows // 2
            else:
                done += rows
                continue
            clear_torch_cache()  # only here, where the traceback no longer holds the tensors

    def _affordable(self, length: int) -> int:
        """How many rows have their logits in half of the free memory.

        On a CPU the system kills a process that takes too much, and raises nothing. A power of two, so that a
        little more or less free memory makes the same batches.
        """
        if self._device.type != "cpu" or length == 0:
            return self._rows
        row = length * self._vocabulary * _BYTES * _COPIES
        return int(2 ** int(math.log2(max(1, psutil.virtual_memory().available // 2 // row))))


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error)
