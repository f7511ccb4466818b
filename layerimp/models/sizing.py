"""The sizes of a model's parts, measured on the model itself."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from layerimp.blocks.modes import quiet
from layerimp.models.dtypes import note_stored, stored_dtype, stored_width
from layerimp.models.traits import cached_bytes, longest_row
from layerimp.sizes.ledger import Amounts, Ledger

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.blocks.stack import BlockStack

CACHE_TOKENS = 128
"""The cache is measured after this many tokens, or the model's limit, since local attention keeps a bounded number."""


def ledger_of(stack: BlockStack) -> Ledger:
    """Make the ledger of a model: the sizes of its parts."""
    return Ledger.collected(len(stack), [*_weights(stack), *_cache(stack)])


def _weights(stack: BlockStack) -> Iterator[tuple[Collection[int], Amounts]]:
    """Yield each distinct parameter's size with its owners; a parameter that is also used outside blocks has none."""
    owners: defaultdict[int, set[int]] = defaultdict(set)
    stays: set[int] = set()
    distinct = {}
    for name, parameter in stack.model.named_parameters(remove_duplicate=False):
        distinct[id(parameter)] = parameter
        inside = name.removeprefix(f"{stack.path}.")
        if inside == name:
            stays.add(id(parameter))
            continue
        owners[id(parameter)].add(int(inside.partition(".")[0]))
    for key, parameter in distinct.items():
        amounts = Amounts(parameter.numel(), parameter.numel() * stored_width(stack.model, parameter))
        yield (() if key in stays else owners[key]), amounts


def language_model(stack: BlockStack) -> Amounts | None:
    """Return the size of the language model in a model that reads more than text; None for a model of text alone.

    It is what is built from the configuration of the blocks, with the table of token embeddings and the head.
    """
    model = stack.model
    if stack.config is model.config:
        return None
    parts = [part for part in model.modules() if getattr(part, "config", None) is stack.config]
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    distinct = {id(weight): weight for part in (*parts, *ends) if part is not None for weight in part.parameters()}
    sizes = [(weight.numel(), weight.numel() * stored_width(model, weight)) for weight in distinct.values()]
    return Amounts(sum(count for count, _ in sizes), sum(width for _, width in sizes))


def _cache(stack: BlockStack) -> Iterator[tuple[Collection[int], Amounts]]:
    """Yield what each block keeps per token; a single NaN for the whole model if this is not known by block."""
    length = min(CACHE_TOKENS, longest_row(stack.model) or CACHE_TOKENS)
    try:
        model, device = (shapes_only(stack.model), "meta") if stack.offloaded else (stack.model, stack.device)
        kept = cached_bytes(model, torch.ones((1, length), dtype=torch.long, device=device))
    except Exception:  # a model may fail in any way with its own cache
        kept = [0]
    if kept and len(kept) != len(stack):
        yield (), Amounts(cache=math.nan)
        return
    for block, size in enumerate(kept):
        yield [block], Amounts(cache=size / length)


def shapes_only(model: PreTrainedModel, config: PretrainedConfig | None = None) -> PreTrainedModel:
    """Build a model on the meta device alone, for a model of which only parts are in memory.

    Args:
        model: The model that is built again.
        config: Another configuration, such as that of the pruned model.
    """
    with quiet(), torch.device("meta"):
        built: PreTrainedModel = type(model)(copy.deepcopy(config or model.config))
        built.eval()
    nn.Module.to(built, model.dtype)
    note_stored(built, stored_dtype(model))
    return built
