"""Properties of a model: the longest row that it can read, whether it is a classifier, and the size of its cache."""

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

_CACHE_NAMES = ("cache", "past_key_values")  # the current name in Transformers, and the earlier one


def longest_row(model: PreTrainedModel) -> int | None:
    """Return the number of tokens that a model has positions for; None if it has no limit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    # Some encoders start their positions after the padding token's id.
    words = model.get_input_embeddings()
    embeddings = (m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not words)
    tables = (table for table in embeddings if table.num_embeddings == positions)
    offsets = [table.padding_idx + 1 for table in tables if table.padding_idx is not None]
    return positions - max(offsets, default=0)


def classifies(model: PreTrainedModel) -> bool:
    """Whether a model predicts one of several labels, judged by its class name as in Transformers."""
    return type(model).__name__.endswith("ForSequenceClassification")


def special_ids(model: PreTrainedModel) -> set[int]:
    """Return the ids of the tokens that begin, end or pad a text, by a model's configurations."""
    ids: set[int] = set()
    for config in (model.config.get_text_config(), model.generation_config):
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(config, name, None)
            ids.update(value if isinstance(value, list) else () if value is None else [value])
    return ids


def cached_bytes(model: PreTrainedModel, tokens: Tensor) -> list[float]:
    """Return the bytes of keys, values and the like that generation keeps after `tokens` [batch, seq], by layer.

    The list is empty for a model that keeps no cache, and holds a single NaN if the size of the cache is not known by
    layer, as for an encoder-decoder. Numbers count in the stored dtype. On the meta device only shapes are computed.
    """
    parameters = inspect.signature(model.forward).parameters
    passed_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    takes = "use_cache" in parameters or (passed_on and hasattr(model.config.get_text_config(), "use_cache"))
    if not model.can_generate() or not takes:
        return []
    with in_eval_mode(model), torch.inference_mode():
        output = model(input_ids=tokens, use_cache=True)
    cache = next((output[name] for name in _CACHE_NAMES if name in output), None)
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
