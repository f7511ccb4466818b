"""The size of the cache that generation keeps for tokens already read, such as keys and values."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

import torch

from layerimp.blocks.modes import in_eval_mode
from layerimp.models.dtypes import stored_dtype

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_NAMES = ("cache", "past_key_values")  # the current name in Transformers, and the earlier one


def cached_bytes(model: PreTrainedModel, tokens: Tensor) -> list[float]:
    """Return the bytes of the cache after `tokens` [batch, seq], layer by layer, in the stored dtype.

    The list is empty for a model that keeps no cache, and holds a single NaN if the size of the cache is not known by
    layer, as for an encoder-decoder. On the meta device only shapes are computed.
    """
    if not model.can_generate() or "use_cache" not in inspect.signature(model.forward).parameters:
        return []
    with in_eval_mode(model), torch.inference_mode():
        output = model(input_ids=tokens, use_cache=True)
    cache = next((output[name] for name in _NAMES if name in output), None)
    if cache is not None and not hasattr(cache, "layers"):
        return [math.nan]
    width, compute = stored_dtype(model).itemsize, model.dtype
    return [
        sum(
            value.numel() * (width if value.dtype == compute else value.itemsize)
            for value in vars(layer).values()
            if isinstance(value, torch.Tensor) and value.numel() > 1  # a single number counts the tokens
        )
        for layer in (() if cache is None else cache.layers)
    ]
