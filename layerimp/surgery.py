"""Removes blocks from a model in memory: exactly and reversibly, or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from layerimp.blocks import BlockStack, bypassed, find_blocks, hidden_states, probe_ids
from layerimp.errors import SurgeryError
from layerimp.model import in_eval_mode
from layerimp.plugins import one_line
from layerimp.pruner import PrunePlan, checked_blocks
from layerimp.shortening import Shortened, shortened

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    Model = TypeVar("Model", bound=PreTrainedModel)

_LOCAL = re.compile(r"sliding_window|attention_chunk|window_size")
"""Fields that bound how far attention looks back."""

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
    with ExitStack() as undo:
        if gone:
            with _short_windows(stack):
                expected = _probe(stack, sorted(gone))
            found = shortened(stack, kept)
            _apply(stack, found, kept, undo)
            try:
                with _short_windows(stack):
                    off = deviation(expected, _probe(stack, []))
            except Exception as error:  # whatever the kept blocks make of what is missing
                raise SurgeryError(
                    f"{type(stack.model).__name__} cannot run without {_named(gone)}: {one_line(error)}"
                ) from error
            if off > TOLERANCE:
                raise SurgeryError(
                    f"{type(stack.model).__name__} computes differently without {_named(gone)} than past it "
                    f"({off:.2g} roundings off): what its blocks do depends on their position"
                )
        return undo.pop_all().close


def _named(blocks: Iterable[int]) -> str:
    """Blocks by their index, as prose."""
    ordered = sorted(blocks)
    return f"block{'s' if len(ordered) > 1 else ''} {', '.join(map(str, ordered))}"


def _apply(stack: BlockStack, found: Shortened, kept: Sequence[int], undo: ExitStack) -> None:
    """Let a model become what its shortened configuration describes."""
    model, count = stack.model, len(stack)
    for (old, name), value in found.attributes.items():
        _set(stack[old], name, value, undo)
    for name, value in found.outside.items():
        _set(model, name, value, undo)
    for path, axis in found.tables.items():
        _slice(model, path, axis, kept, count, undo)
    for path in (stack.path, *found.parallel):
        modules = model.get_submodule(path)
        assert isinstance(modules, nn.ModuleList)
        undo.callback(_put, model, path, modules)
        _put(model, path, nn.ModuleList(modules[index] for index in kept))
    _describe(model, found, undo)


def _set(module: nn.Module, name: str, value: object, undo: ExitStack) -> None:
    """Set an attribute, such as a block's index: a stale one breaks cached generation."""
    path, _, own = name.rpartition(".")
    part = module.get_submodule(path)
    before = getattr(part, own)
    undo.callback(setattr, part, own, before)
    setattr(part, own, list(value) if isinstance(before, list) and isinstance(value, tuple) else value)


def _slice(model: nn.Module, name: str, axis: int, kept: Sequence[int], count: int, undo: ExitStack) -> None:
    """Keep the kept blocks' slices of a weight that has one for each block."""
    path, _, own = name.rpartition(".")
    part = model.get_submodule(path)
    whole = getattr(part, own)
    rows = torch.arange(whole.shape[axis], device=whole.device).view(count, -1)[list(kept)].flatten()
    sliced = whole.detach().index_select(axis, rows)
    undo.callback(setattr, part, own, whole)
    setattr(part, own, nn.Parameter(sliced, requires_grad=whole.requires_grad) if _is_weight(whole) else sliced)


def _is_weight(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def _put(model: nn.Module, path: str, modules: nn.ModuleList) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, modules)


def _describe(model: PreTrainedModel, found: Shortened, undo: ExitStack) -> None:
    """Let every configuration in the model, and what it says of tied weights, be that of the skeleton."""
    old, new = model.config, found.config
    for config, target in _pairs(old, new):
        undo.callback(_restore, config, dict(vars(config)))
        changed = {
            name: value
            for name, value in vars(target).items()
            if (name[0] != "_" or name == "_heterogeneity_spec") and not hasattr(value, "to_diff_dict")
        }
        vars(config).update({n: v for n, v in changed.items() if n not in vars(config) or vars(config)[n] != v})
    fresh = dict(found.skeleton.named_modules())
    for path, module in model.named_modules():
        for name in ("_tied_weights_keys", "all_tied_weights_keys"):
            other = vars(fresh[path]).get(name) if path in fresh else None
            if name in vars(module) and other is not None and vars(module)[name] != other:
                undo.callback(setattr, module, name, vars(module)[name])
                setattr(module, name, other)


def _pairs(old: PretrainedConfig, new: PretrainedConfig) -> Iterator[tuple[PretrainedConfig, PretrainedConfig]]:
    """A configuration and its parts, each with its new state."""
    yield old, new
    for name, part in list(vars(old).items()):
        other = vars(new).get(name)
        if type(other) is type(part) and hasattr(part, "to_diff_dict"):
            yield from _pairs(part, other)


@contextmanager
def _short_windows(stack: BlockStack) -> Iterator[None]:
    """Let local attention look back fewer tokens than a probe has, so that it is told from full attention."""
    config = stack.config
    fields = {
        name: value
        for name, value in vars(config).items()
        if _LOCAL.search(name) and type(value) is int and value > PROBE_TOKENS // 2
    }
    vars(config).update(dict.fromkeys(fields, PROBE_TOKENS // 2))
    try:
        yield
    finally:
        vars(config).update(fields)


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


def _restore(config: PretrainedConfig, fields: dict[str, Any]) -> None:
    config.__dict__.clear()
    config.__dict__.update(fields)
