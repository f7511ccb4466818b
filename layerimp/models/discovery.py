"""Finds a model's stack of blocks, in any architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from layerimp.blocks.stack import BlockStack
from layerimp.errors import ModelError, PluginError, listing
from layerimp.models.unsupported import refuse_unfit
from layerimp.registry.loader import host

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_COUNTS_BLOCKS = re.compile(r"(num|n)_(hidden_|decoder_|encoder_)?(layers?|blocks)|(decoder|encoder)_layers|depth")
"""The names of configuration fields that count blocks."""


def find_blocks(model: PreTrainedModel, *, quantised: bool = False) -> BlockStack:
    """Find the stack of blocks of a model.

    The hook `layerimp_blocks` of plugins is called first. If no plugin knows the model, the stack is the `ModuleList`
    whose length is the configuration's `num_hidden_layers`, or another field that counts layers. If the model also
    reads other things than text, that is the configuration of its language model, and the list lies in the part that is
    built from it. Of nested lists the outermost is taken, and of several the one with the largest blocks, such as the
    decoder of an encoder-decoder model.

    Args:
        model: The model.
        quantised: Whether to accept quantised weights. Such a model can only be run: no blocks can be removed from it.

    Raises:
        ModelError: the model has no such list, or its configuration does not say how many blocks there are.
    """
    refuse_unfit(model, quantised=quantised)
    if stack := _taught(model):
        return stack
    try:
        config = model.config.get_text_config()
    except ValueError as error:
        raise ModelError(f"it is not clear which part of {type(model).__name__} holds its blocks: {error}") from error
    counts = _counts(config)
    kind = type(model).__name__
    if not counts:
        stated = getattr(config, "num_hidden_layers", None)
        problem = "does not say how many blocks it has (num_hidden_layers)"
        if stated is not None:
            problem = f"says num_hidden_layers {stated}, and there must be a block to look at"
        raise ModelError(f"the configuration of {kind} {problem}")
    lists = {path: module for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    fitting = {path: module for path, module in lists.items() if len(module) in counts}
    outermost = {
        path: module
        for path, module in fitting.items()
        if not any(path.startswith(f"{other}.") for other in fitting if other != path)
    }
    if not outermost:
        lengths = ", ".join(f"{path} ({len(module)})" for path, module in lists.items() if ".0." not in path) or "none"
        raise ModelError(
            f"{kind} has no list of {listing(map(str, counts))} blocks (its lists: {lengths}); "
            "a layerimp_blocks hook can teach it"
        )
    outermost = _built_from(model, config, outermost) or outermost
    path = max(outermost, key=lambda p: sum(w.numel() for w in outermost[p].parameters()) / len(outermost[p]))
    return BlockStack(model, path, config, _backbone(model, path))


def _taught(model: PreTrainedModel) -> BlockStack | None:
    """Return the stack that a plugin finds, if any; a plugin whose hook is broken is not used again."""
    for implementation in reversed(host().manager.hook.layerimp_blocks.get_hookimpls()):
        plugin = implementation.plugin_name
        try:
            with host().record(plugin).at_work():  # a LayerimpError is a refusal by a plugin that knows the model
                stack = implementation.function(model)
            if isinstance(stack, BlockStack):
                return stack
            if stack is not None:
                raise PluginError(f"returns {type(stack).__name__}, not a BlockStack")
        except PluginError as error:
            host().fail(plugin, f"layerimp_blocks: {error}")
            host().tell_failures()
    return None


def _counts(config: PretrainedConfig) -> list[int]:
    """List the possible numbers of blocks, from the fields of a configuration that count layers."""
    main = getattr(config, "num_hidden_layers", None)
    named = [value for name, value in getattr(config, "__dict__", {}).items() if _COUNTS_BLOCKS.fullmatch(name)]
    return list(dict.fromkeys(value for value in (main, *named) if isinstance(value, int) and value > 0))


def _built_from(
    model: PreTrainedModel, config: PretrainedConfig, lists: Mapping[str, nn.ModuleList]
) -> dict[str, nn.ModuleList]:
    """Return those of some lists, by path, that lie in a part of the model that is built from a configuration."""
    built = {path: part.config for path, part in model.named_modules() if hasattr(part, "config")}

    def nearest(path: str) -> object:
        holders = [place for place in built if not place or path.startswith(f"{place}.")]
        return built[max(holders, key=len)]

    return {path: modules for path, modules in lists.items() if nearest(path) is config}


def _backbone(model: PreTrainedModel, path: str) -> nn.Module:
    """Return the smallest part that turns token ids into hidden states: the base model, if it holds the blocks."""
    prefix = model.base_model_prefix
    return model.base_model if prefix and path.startswith(f"{prefix}.") else model
