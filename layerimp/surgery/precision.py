"""A context for a model in float32, for checks in which half precision cannot tell an error from a rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import TYPE_CHECKING

import torch

from layerimp.blocks.memory import free_bytes
from layerimp.errors import SurgeryError
from layerimp.models.dtypes import HALF

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """A context in which half-precision weights and buffers of a model are held in float32, which is exact.

    Raises:
        SurgeryError: there is not enough memory.
    """
    tensors = [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.dtype in HALF]
    needs: Counter[torch.device] = Counter()
    for tensor in tensors:
        needs[tensor.device] += 2 * tensor.nbytes
    for device, need in needs.items():
        if need * 1.1 > (free := free_bytes(device)):
            raise SurgeryError(
                "whether the removal is exact cannot be told in half precision, and float32 needs "
                f"{need / 2**30:.1f} GiB more memory on {device}, where {free / 2**30:.1f} GiB are free"
            )
    with ExitStack() as undo:
        for tensor in tensors:
            undo.callback(setattr, tensor, "data", tensor.data)
            tensor.data = tensor.data.float()
        yield
