"""Changes a model into the one that its shortened configuration describes, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from layerimp.surgery.meta_model import facts

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.blocks.stack import BlockStack
    from layerimp.surgery.config_search import Shortened


def put_in_place(stack: BlockStack, shortened: Shortened, kept: Sequence[int], undo: ExitStack) -> None:
    """Change a model in place into the one that its shortened configuration describes.

    Args:
        stack: The blocks of the intact model.
        shortened: The configuration, and the changes that follow from it.
        kept: The kept blocks.
        undo: The stack that receives the functions to undo the changes.
    """
    model, count, blocks = stack.model, len(stack), [stack[index] for index in kept]
    for (new, name), value in shortened.attributes.items():
        _set(blocks[new], name, value, undo)
    for new, name in _acquired(stack, blocks, shortened):
        _set(blocks[new], name, new, undo)
    for name, value in shortened.outside.items():
        _set(model, name, value, undo)
    for path, axis in shortened.tables.items():
        _exchange(model, path, _sliced(attrgetter(path)(model), axis, kept, count), undo)
    for path in shortened.parallel:
        modules: Any = model.get_submodule(path)
        _exchange(model, path, nn.ModuleList(modules[index] for index in kept), undo)
    listed = nn.ModuleList(blocks)
    listed.training = model.training  # not by train(), which would change the blocks too
    _exchange(model, stack.path, listed, undo)
    _describe(model, shortened, undo)


def _acquired(stack: BlockStack, blocks: Sequence[nn.Module], shortened: Shortened) -> Iterator[tuple[int, str]]:
    """Yield attributes to change, as (new block, path), in parts that the model replaced after it was built."""
    known = {name for _, name in shortened.attributes}
    held = [facts(block) for block in stack]
    names = {name for name in held[0] if name not in known and type(held[0][name]) is int}
    own = [name for name in names if all(of.get(name) == index for index, of in enumerate(held))]
    if own:
        kept = [facts(block) for block in blocks]
        yield from ((new, name) for new, of in enumerate(kept) for name in own if of.get(name, new) != new)


def _set(module: nn.Module, name: str, value: object, undo: ExitStack) -> None:
    """Set an attribute, such as a block's index: a stale one breaks cached generation."""
    try:
        before = attrgetter(name)(module)
    except AttributeError:  # models may replace a part while they run, and the new part lacks the attribute
        return
    _exchange(module, name, type(before)(value) if isinstance(value, tuple | dict) else value, undo)


def _sliced(whole: Tensor, axis: int, kept: Sequence[int], count: int) -> Tensor:
    """Return the kept slices of a weight that has one slice per block along an axis."""
    rows = torch.arange(whole.shape[axis], device=whole.device).view(count, -1)[list(kept)].flatten()
    sliced = whole.detach().index_select(axis, rows)
    return nn.Parameter(sliced, requires_grad=whole.requires_grad) if isinstance(whole, nn.Parameter) else sliced


def _exchange(module: nn.Module, path: str, value: object, undo: ExitStack) -> None:
    """Replace what a module holds at a path."""
    parent, _, name = path.rpartition(".")
    part = module.get_submodule(parent)
    undo.callback(setattr, part, name, getattr(part, name))
    setattr(part, name, value)


def _describe(model: PreTrainedModel, shortened: Shortened, undo: ExitStack) -> None:
    """Give the model the configurations and the lists of tied weights of the meta model."""
    for config, target in _pairs(model.config, shortened.config):
        undo.callback(_restore, config, dict(vars(config)))
        changed = {
            name: value
            for name, value in vars(target).items()
            if (name[0] != "_" or name == "_heterogeneity_spec") and not hasattr(value, "to_diff_dict")
        }
        vars(config).update({n: v for n, v in changed.items() if n not in vars(config) or vars(config)[n] != v})
    fresh = dict(shortened.meta_model.named_modules())
    for path, module in model.named_modules():
        for name in ("_tied_weights_keys", "all_tied_weights_keys"):
            other = vars(fresh[path]).get(name) if path in fresh else None
            if name in vars(module) and other is not None and vars(module)[name] != other:
                _exchange(module, name, other, undo)


def _pairs(old: PretrainedConfig, new: PretrainedConfig) -> Iterator[tuple[PretrainedConfig, PretrainedConfig]]:
    """Yield a configuration and its parts, each with its new version."""
    yield old, new
    for name in list(vars(old)):
        part: Any = vars(old)[name]
        other: Any = vars(new).get(name)
        if type(other) is type(part) and hasattr(part, "to_diff_dict"):
            yield from _pairs(part, other)


def _restore(config: PretrainedConfig, fields: dict[str, Any]) -> None:
    config.__dict__.clear()
    config.__dict__.update(fields)
