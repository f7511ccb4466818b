"""The size of the cache that generation keeps for tokens already read, such as keys and values."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from layerimp.blocks.modes import in_eval_mode
from layerimp.models.dtypes import stored_dtype

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_NAMES = ("cache", "past_key_values")  # the current name in Transformers, and the earlier one


def cached_bytes(model: PreTrainedModel, tokens: Tensor) -> list[int]:
    """Return the bytes of the cache after `tokens` [batch, seq], layer by layer, in the stored dtype.

    The list is empty for a model that keeps no cache. On the meta device only shapes are computed.
    """
    if not model.can_generate() or "use_cache" not in inspect.signature(model.forward).parameters:
        return []
    with in_eval_mode(model), torch.inference_mode():
        output = model(input_ids=tokens, use_cache=True)
    cache = next((output[name] for name in _NAMES if name in output), None)
    width, compute = stored_dtype(model).itemsize, model.dtype
    return [
        sum(
            value.numel() * (width if value.dtype == compute else value.itemsize)
            for value in vars(layer).values()
            if isinstance(value, torch.Tensor) and value.numel() > 1  # a single number counts the tokens
        )
        for layer in getattr(cache, "layers", ())
    ]
