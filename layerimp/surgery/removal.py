"""Removes blocks from a model in memory: exactly and reversibly, or not at all."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from layerimp.blocks.equivalence import TOKENS, TOLERANCE, cached_logits, deviation, last_hidden, stored_tensors
from layerimp.blocks.stack import BlockStack
from layerimp.errors import LayerimpError, SurgeryError, one_line
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import HALF
from layerimp.pruner import PrunePlan
from layerimp.steps import Step, checked_steps
from layerimp.surgery.config_search import Shortened, shortened
from layerimp.surgery.meta_model import facts
from layerimp.surgery.precision import in_float32

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

    Model = TypeVar("Model", bound=PreTrainedModel)

_LOCAL = re.compile(r"sliding_window|attention_chunk|window_size")
"""Fields that bound how far attention looks back."""


def prune(model: Model, blocks: Sequence[Step] | PrunePlan) -> Model:
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
    steps = blocks.blocks if isinstance(blocks, PrunePlan) else blocks
    prepare(find_blocks(model), steps).apply()
    return model


@contextmanager
def pruned(model: PreTrainedModel, blocks: Sequence[Step]) -> Iterator[PreTrainedModel]:
    """The model without `blocks`, and on leaving as it was; see `prune`."""
    with prepare(find_blocks(model), blocks).applied():
        yield model


def prepare(stack: BlockStack, blocks: Sequence[Step]) -> Removal:
    """Find the configuration of a model without `blocks`, and prove that stock code builds the kept blocks from it.

    Nothing is changed yet. What takes long is done here, once; the result can be applied as often as needed.

    Raises:
        OptionError: a block does not exist, or comes twice.
        SurgeryError: stock code builds something else than the kept blocks; says what would be different.
    """
    gone = {step for step in checked_steps(blocks, len(stack)) if isinstance(step, int)}
    kept = [index for index in range(len(stack)) if index not in gone]
    if not kept:
        raise SurgeryError(f"removing all {len(stack)} blocks leaves no model")
    return Removal(stack, sorted(gone), kept, shortened(stack, kept) if gone else None)


@dataclass(frozen=True)
class Removal:
    """A removal that is prepared: it can be applied, and taken back, as often as needed.

    Attributes:
        stack: The blocks of the intact model.
        gone: The indices of the blocks that go, in depth order.
        kept: The indices of those that stay.
        shortened: The configuration of the kept blocks, and what follows from it; None where nothing goes.
    """

    stack: BlockStack
    gone: Sequence[int]
    kept: Sequence[int]
    shortened: Shortened | None

    @contextmanager
    def applied(self) -> Iterator[PreTrainedModel]:
        """The model without the blocks, and on leaving as it was; see `apply`."""
        undo = self.apply()
        try:
            yield self.stack.model
        finally:
            undo()

    def apply(self) -> Callable[[], None]:
        """Remove the blocks, prove that the model computes what it computed past them, and return what puts them back.

        Raises:
            SurgeryError: the model computes something else now, and is as it was.
        """
        with ExitStack() as undo:
            if not self._settled(undo):
                undo.close()
                with in_float32(self.stack.model), ExitStack() as undone:
                    self._settled(undone)
                self._settled(undo)
            return undo.pop_all().close

    def beside(self) -> PreTrainedModel:
        """The model without the blocks as a tree of modules of its own, beside the intact one.

        Both share the tensors of what is kept, so that no weight is there twice. Replace a parameter of the new tree,
        rather than writing into it, and the intact model stays as it is. Buffers that no checkpoint holds, such as
        tables of positions, are copied.

        Raises:
            SurgeryError: the pruned model computes something else than the intact one past the blocks.
        """
        with self.applied() as model:
            shared = {id(tensor): tensor for tensor in stored_tensors(model).values()}
            return copy.deepcopy(model, shared)

    def _settled(self, undo: ExitStack) -> bool:
        """Remove the blocks, and compare with the model past them.

        Returns whether that settles it: in half precision a rounding is as large as many an error, and only equal bits
        do.

        Raises:
            SurgeryError: the model computes something else now.
        """
        if self.shortened is None:
            return True
        expected, cached = _past(self.stack, self.gone)
        _apply(self.stack, self.shortened, self.kept, undo)
        equal = _prove(self.stack, expected, cached, f"without {_named(self.gone)}")
        return equal or expected.dtype not in HALF


def _past(stack: BlockStack, gone: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """What a model puts out past blocks: the last hidden states, and logits with a cache, where it can use one."""
    try:
        with _short_windows(stack):
            expected = last_hidden(stack, gone)
    except LayerimpError:
        raise
    except Exception as error:  # whatever a model makes of a few tokens
        raise SurgeryError(f"{type(stack.model).__name__} cannot run on a few tokens: {one_line(error)}") from error
    with suppress(Exception):  # whatever a model makes of its own cache; then there is nothing to keep exact
        return expected, cached_logits(stack, gone)
    return expected, None


def _prove(stack: BlockStack, expected: Tensor, cached: Tensor | None, without: str) -> bool:
    """Compare what the model puts out now, without blocks, with what it put out past them: whether it is the very same.

    Raises:
        SurgeryError: it is further off than roundings.
    """
    kind = type(stack.model).__name__
    how = ""
    try:
        with _short_windows(stack):
            off = deviation(expected, last_hidden(stack))
        equal = off == 0
        if off <= TOLERANCE and cached is not None:
            how = " with a cache"
            off = deviation(cached, cached_logits(stack), stack.model.dtype)
            equal = equal and off == 0
    except Exception as error:  # whatever the kept blocks make of what is missing
        raise SurgeryError(f"{kind} cannot run{how} {without}: {one_line(error)}") from error
    if off > TOLERANCE:
        raise SurgeryError(
            f"{kind} computes differently{how} {without} than past it ({off:.2g} roundings off): what its "
            "blocks do depends on their position"
        )
    return equal


def _named(blocks: Sequence[int]) -> str:
    """Blocks by their index, as prose."""
    return f"block{'s' if len(blocks) > 1 else ''} {', '.join(map(str, blocks))}"


def _apply(stack: BlockStack, found: Shortened, kept: Sequence[int], undo: ExitStack) -> None:
    """Let a model become what its shortened configuration describes."""
    model, count = stack.model, len(stack)
    for (old, name), value in found.attributes.items():
        _set(stack[old], name, value, undo)
    for old, name, new in _acquired(stack, kept, found):
        _set(stack[old], name, new, undo)
    for name, value in found.outside.items():
        _set(model, name, value, undo)
    for path, axis in found.tables.items():
        _exchange(model, path, _sliced(attrgetter(path)(model), axis, kept, count), undo)
    for path in (stack.path, *found.parallel):
        modules = model.get_submodule(path)
        assert isinstance(modules, nn.ModuleList)
        _exchange(model, path, nn.ModuleList(modules[index] for index in kept), undo)
    _describe(model, found, undo)


def _acquired(stack: BlockStack, kept: Sequence[int], found: Shortened) -> Iterator[tuple[int, str, int]]:
    """The indices in parts of blocks that the model exchanged since it was built: (old index, name, new index)."""
    known = {name for _, name in found.attributes}
    held = [facts(block) for block in stack]
    names = {name for name in held[0] if name not in known and type(held[0][name]) is int}
    own = [name for name in names if all(of.get(name) == index for index, of in enumerate(held))]
    yield from ((old, name, new) for new, old in enumerate(kept) for name in own if old != new)


def _set(module: nn.Module, name: str, value: object, undo: ExitStack) -> None:
    """Set an attribute, such as a block's index: a stale one breaks cached generation."""
    try:
        before = attrgetter(name)(module)
    except AttributeError:  # models may exchange a part while they run, and that one does not ask
        return
    _exchange(module, name, type(before)(value) if isinstance(value, tuple | dict) else value, undo)


def _sliced(whole: Tensor, axis: int, kept: Sequence[int], count: int) -> Tensor:
    """The kept blocks' slices of a weight that has one for each block."""
    rows = torch.arange(whole.shape[axis], device=whole.device).view(count, -1)[list(kept)].flatten()
    sliced = whole.detach().index_select(axis, rows)
    return nn.Parameter(sliced, requires_grad=whole.requires_grad) if isinstance(whole, nn.Parameter) else sliced


def _exchange(module: nn.Module, path: str, value: object, undo: ExitStack) -> None:
    """Let a module hold something else at a path in it."""
    parent, _, name = path.rpartition(".")
    part = module.get_submodule(parent)
    undo.callback(setattr, part, name, getattr(part, name))
    setattr(part, name, value)


def _describe(model: PreTrainedModel, found: Shortened, undo: ExitStack) -> None:
    """Let every configuration in the model, and what it says of tied weights, be that of the meta model."""
    for config, target in _pairs(model.config, found.config):
        undo.callback(_restore, config, dict(vars(config)))
        changed = {
            name: value
            for name, value in vars(target).items()
            if (name[0] != "_" or name == "_heterogeneity_spec") and not hasattr(value, "to_diff_dict")
        }
        vars(config).update({n: v for n, v in changed.items() if n not in vars(config) or vars(config)[n] != v})
    fresh = dict(found.meta_model.named_modules())
    for path, module in model.named_modules():
        for name in ("_tied_weights_keys", "all_tied_weights_keys"):
            other = vars(fresh[path]).get(name) if path in fresh else None
            if name in vars(module) and other is not None and vars(module)[name] != other:
                _exchange(module, name, other, undo)


def _pairs(old: PretrainedConfig, new: PretrainedConfig) -> Iterator[tuple[PretrainedConfig, PretrainedConfig]]:
    """A configuration and its parts, each with its new state."""
    yield old, new
    for name in list(vars(old)):
        part: Any = vars(old)[name]
        other: Any = vars(new).get(name)
        if type(other) is type(part) and hasattr(part, "to_diff_dict"):
            yield from _pairs(part, other)


@contextmanager
def _short_windows(stack: BlockStack) -> Iterator[None]:
    """Let local attention look back fewer tokens than a trial has, so that it is told from full attention."""
    config = stack.config
    fields = {
        name: value
        for name, value in vars(config).items()
        if _LOCAL.search(name) and type(value) is int and value > TOKENS // 3
    }
    vars(config).update(dict.fromkeys(fields, TOKENS // 3))
    try:
        yield
    finally:
        vars(config).update(fields)


def _restore(config: PretrainedConfig, fields: dict[str, Any]) -> None:
    config.__dict__.clear()
    config.__dict__.update(fields)
