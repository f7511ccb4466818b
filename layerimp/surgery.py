"""Removes blocks from a model in memory: exactly and reversibly, or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from layerimp.blocks import BlockStack, bypassed, find_blocks, hidden_states, probe_ids
from layerimp.errors import SurgeryError
from layerimp.model import in_eval_mode, quiet
from layerimp.pruner import PrunePlan, checked_blocks

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    Model = TypeVar("Model", bound=PreTrainedModel)

_COUNTS_BELOW = ("first_k_dense_replace", "max_window_layers")
"""Fields that split the blocks by depth: the first so many are of one kind."""
_INDEX_LISTS = ("mlp_only_layers",)
"""Fields that list blocks by index."""

PROBE_TOKENS = 8
TOLERANCE = 8.0
"""How many roundings two ways of computing the same may lie apart; most lie 0."""


def prune(model: Model, blocks: Sequence[int] | PrunePlan) -> Model:
    """Remove blocks from a model, in place.

    Args:
        model: The model; left as it was if the removal fails.
        blocks: Indices, or a plan.

    Returns:
        The same object. A fresh model of its changed configuration has the same blocks.

    Raises:
        OptionError: a block does not exist, or comes twice.
        SurgeryError: the blocks cannot be removed exactly; says why.
    """
    if isinstance(blocks, PrunePlan):
        blocks = blocks.blocks
    _remove(find_blocks(model), blocks)
    return model


@contextmanager
def pruned(model: PreTrainedModel, blocks: Sequence[int]) -> Iterator[PreTrainedModel]:
    """The model without `blocks`, and on leaving as it was; see `prune`."""
    undo = _remove(find_blocks(model), blocks)
    try:
        yield model
    finally:
        undo()


def _remove(stack: BlockStack, blocks: Sequence[int]) -> Callable[[], None]:
    """Remove `blocks`, prove that it is exact, and return what puts them back."""
    gone = set(checked_blocks(blocks, len(stack)))
    kept = [index for index in range(len(stack)) if index not in gone]
    if not kept:
        raise SurgeryError(f"removing all {len(stack)} blocks leaves no model")
    model, modules = stack.model, stack.modules
    with ExitStack() as undo:
        if gone:
            expected = _probe(stack, sorted(gone))
            skeleton = _skeleton(model, model.config)
            originals = dict(stack.config.__dict__)
            undo.callback(_restore, stack.config, originals)
            _shorten(stack.config, originals, kept, len(stack))
            indices = _compare(skeleton, _skeleton(model, model.config), stack.path, kept)
            undo.callback(_replace, stack, modules)
            _replace(stack, nn.ModuleList(modules[index] for index in kept))
            for new, (old, block) in enumerate(zip(kept, stack, strict=True)):
                _renumber(block, indices, old, new, undo)
            if (off := deviation(expected, _probe(stack, []))) > TOLERANCE:
                raise SurgeryError(
                    f"{type(model).__name__} computes differently without block {min(gone)} than past it ({off:.2g} "
                    "roundings off): what its blocks do depends on their position"
                )
        return undo.pop_all().close


def _probe(stack: BlockStack, skipped: Sequence[int]) -> Tensor:
    """The last hidden states [1, seq, hidden] of a few tokens, past the blocks `skipped`."""
    ids = probe_ids(stack, PROBE_TOKENS)
    with in_eval_mode(stack.model), torch.no_grad(), bypassed(stack, skipped):
        output = stack.backbone(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return hidden_states(output.to_tuple())


def deviation(expected: Tensor, found: Tensor) -> float:
    """The largest difference, in roundings of the dtype at the scale of the largest value; infinite where NaN."""
    scale = float(expected.abs().max()) * torch.finfo(expected.dtype).eps
    off = float((expected.double() - found.double()).abs().max())
    return off / max(scale, 1e-300) if math.isfinite(off) else math.inf


def _replace(stack: BlockStack, modules: nn.ModuleList) -> None:
    parent, _, name = stack.path.rpartition(".")
    setattr(stack.model.get_submodule(parent), name, modules)


def _renumber(block: nn.Module, indices: set[str], old: int, new: int, undo: ExitStack) -> None:
    """Give every part of a block that knows its index the new one; a stale one breaks cached generation."""
    for fact in indices:
        path, _, name = fact.rpartition(".")
        module = block.get_submodule(path)
        undo.callback(setattr, module, name, old)
        setattr(module, name, new)


def _shorten(config: PretrainedConfig, fields: dict[str, Any], kept: Sequence[int], count: int) -> None:
    """Make a configuration describe the kept blocks alone."""
    for name, value in fields.items():
        if name in _COUNTS_BELOW and isinstance(value, int):
            setattr(config, name, sum(index < value for index in kept))
        elif name in _INDEX_LISTS and isinstance(value, list):
            setattr(config, name, [new for new, old in enumerate(kept) if old in value])
        elif isinstance(value, list | tuple) and len(value) == count and not name.endswith("_token_id"):
            setattr(config, name, type(value)(value[index] for index in kept))
    config.num_hidden_layers = len(kept)


def _restore(config: PretrainedConfig, fields: dict[str, Any]) -> None:
    config.__dict__.clear()
    config.__dict__.update(fields)


def _skeleton(model: PreTrainedModel, config: PretrainedConfig) -> PreTrainedModel:
    """What stock code builds from a configuration that was written and read again, without weights."""
    try:
        with quiet(), torch.device("meta"):
            return type(model)(type(config).from_dict(json.loads(config.to_json_string())))
    except Exception as error:
        cause = str(error).strip().split("\n")[0]
        raise SurgeryError(
            f"{type(model).__name__} cannot be built from its shortened configuration: {cause}"
        ) from error


def _compare(before: PreTrainedModel, after: PreTrainedModel, path: str, kept: Sequence[int]) -> set[str]:
    """Refuse a configuration from which stock code would build other blocks than the kept ones.

    Returns the attributes that hold a block's own index: in every block of `before` they do.
    """
    old_blocks, new_blocks = before.get_submodule(path), after.get_submodule(path)
    assert isinstance(old_blocks, nn.ModuleList)
    assert isinstance(new_blocks, nn.ModuleList)
    if len(new_blocks) != len(kept):
        raise SurgeryError(f"{type(before).__name__} builds {len(new_blocks)} blocks where {len(kept)} are kept")
    before_facts = [_facts(block) for block in old_blocks]
    indices = {
        name
        for name, value in before_facts[0].items()
        if type(value) is int and all(facts.get(name) == i for i, facts in enumerate(before_facts))
    }
    for new, old in enumerate(kept):
        facts = _facts(new_blocks[new])
        for name in sorted(before_facts[old].keys() | facts.keys(), key=lambda name: (name.count("."), name)):
            was, now = before_facts[old].get(name), facts.get(name)
            if was != now and not (name in indices and now == new):
                raise SurgeryError(
                    f"block {old} cannot become block {new} of {type(before).__name__}: its {name} would change from "
                    f"{was} to {now}, because it depends on the position"
                )
    return indices


def _facts(block: nn.Module) -> dict[str, object]:
    """What distinguishes a block: the classes of its modules, the shapes of its parameters, its plain attributes."""
    facts: dict[str, object] = {}
    for path, module in block.named_modules():
        prefix = f"{path}." if path else ""
        facts[f"{prefix}class"] = type(module).__name__
        for name, value in vars(module).items():
            if isinstance(value, bool | int | float | str | tuple | None) and name[0] != "_" and name != "training":
                facts[prefix + name] = value
        for name, parameter in module.named_parameters(recurse=False):
            facts[prefix + name] = tuple(parameter.shape)
    return facts
