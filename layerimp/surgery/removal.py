"""Removes blocks from a model in memory: exactly and reversibly, or not at all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from layerimp.blocks.equivalence import Probe, probes, stored_tensors
from layerimp.blocks.memory import shortage
from layerimp.blocks.modalities import IMAGE, MODALITIES, Modality
from layerimp.blocks.modes import holding, quiet
from layerimp.blocks.stack import BlockStack
from layerimp.errors import ModelError, SurgeryError
from layerimp.indices import checked_blocks, kept_blocks, named
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import HALF
from layerimp.pruner import PrunePlan
from layerimp.surgery.application import put_in_place
from layerimp.surgery.config_search import Shortened, shortened
from layerimp.surgery.proof import past, prove

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    Model = TypeVar("Model", bound=PreTrainedModel)


def prune(model: Model, blocks: Sequence[int] | PrunePlan) -> Model:
    """Remove blocks from a model, in place.

    Args:
        model: The model; unchanged if the removal fails.
        blocks: The indices of the blocks, or a plan.

    Returns:
        The same object. A new model built from its changed configuration has the same blocks.

    Raises:
        OptionError: a block does not exist or is named twice, or the plan is for another number of blocks.
        SurgeryError: the blocks cannot be removed exactly; the error says why.
        NonFiniteError: the model gives a NaN or an infinity.
    """
    stack = find_blocks(model)
    prepare(stack, blocks.blocks_for(len(stack)) if isinstance(blocks, PrunePlan) else blocks).apply()
    return model


@contextmanager
def pruned(model: PreTrainedModel, blocks: Sequence[int]) -> Iterator[PreTrainedModel]:
    """A context in which the model lacks `blocks`; at its end the model is as before. See `prune`."""
    with prepare(find_blocks(model), blocks).applied():
        yield model


def prepare(stack: BlockStack, blocks: Sequence[int]) -> Removal:
    """Find the configuration of a model without `blocks`, and check that stock code builds the kept blocks from it.

    Nothing is changed yet. The slow part of a removal is done here, once; the result can be applied many times.

    Args:
        stack: The blocks of the model.
        blocks: The blocks to remove.

    Raises:
        OptionError: a block does not exist or is named twice.
        SurgeryError: stock code does not build the kept blocks; the error says what would be different.
    """
    removed = sorted(checked_blocks(blocks, len(stack)))
    kept = kept_blocks(removed, len(stack))
    if not kept:
        raise SurgeryError(f"removing all {len(stack)} blocks leaves no model")
    tried = _probes(stack)
    return Removal(stack, removed, kept, shortened(stack, kept) if removed else None, tried)


@dataclass(frozen=True)
class Removal:
    """A prepared removal, which can be applied and undone any number of times.

    Attributes:
        stack: The blocks of the intact model.
        removed: The removed blocks, in depth order.
        kept: The kept blocks, in depth order.
        shortened: The configuration of the kept blocks, and what follows from it; None if nothing is removed.
        probes: The inputs on which the pruned model is compared with the intact one.
    """

    stack: BlockStack
    removed: Sequence[int]
    kept: Sequence[int]
    shortened: Shortened | None
    probes: Sequence[Probe]

    @property
    def untried(self) -> list[Modality]:
        """What the model reads beside text and images, and cannot be compared on."""
        tried = {IMAGE, *(probe.modality for probe in self.probes)}
        return [modality for modality in MODALITIES if modality not in tried and modality.taken_by(self.stack.model)]

    @contextmanager
    def applied(self) -> Iterator[PreTrainedModel]:
        """A context in which the model lacks the blocks; at its end the model is as before. See `apply`."""
        undo = self.apply()
        try:
            yield self.stack.model
        finally:
            undo()

    def apply(self) -> Callable[[], None]:
        """Remove the blocks, and verify that the model computes the same as the intact one with the blocks bypassed.

        Returns:
            A function that restores the intact model.

        Raises:
            SurgeryError: the pruned model computes something else. The model is then as before.
            NonFiniteError: the model gives a NaN or an infinity. It is then as before.
        """
        with quiet(), ExitStack() as undo:
            if not self._settled(undo):
                undo.close()
                with in_float32(self.stack.model), ExitStack() as undone:
                    self._settled(undone)
                self._settled(undo)
            return undo.pop_all().close

    def beside(self) -> PreTrainedModel:
        """Return the model without the blocks as a separate tree of modules, beside the intact model.

        Both share the tensors of the kept parts, so that no weight exists twice. To leave the intact model as it is,
        replace a parameter of the new tree rather than writing into it. Buffers that no checkpoint holds, such as
        tables of positions, are copied.

        Raises:
            SurgeryError: the pruned model does not compute the same as the intact one with the blocks bypassed.
            NonFiniteError: the model gives a NaN or an infinity.
        """
        with self.applied() as model:
            shared = {id(tensor): tensor for tensor in stored_tensors(model).values()}
            return copy.deepcopy(model, shared)

    def _settled(self, undo: ExitStack) -> bool:
        """Remove the blocks, and compare with the intact model with the blocks bypassed.

        Returns:
            Whether the comparison verifies the removal. In half precision, where rounding can be as large as an error,
            it does so only if both results are equal bit for bit.

        Raises:
            SurgeryError: the pruned model computes something else.
        """
        if self.shortened is None:
            return True
        expected = [past(self.stack, self.removed, probe) for probe in self.probes]
        put_in_place(self.stack, self.shortened, self.kept, undo)
        equal = [prove(self.stack, outputs, f"without {named(self.removed)}") for outputs in expected]
        return all(equal) or expected[0].hidden.dtype not in HALF


def _probes(stack: BlockStack) -> list[Probe]:
    """Return the inputs on which a model is tried.

    Raises:
        SurgeryError: the model reads what cannot be made up.
    """
    try:
        return probes(stack)
    except ModelError as error:
        raise SurgeryError(str(error)) from error


@contextmanager
def in_float32(model: PreTrainedModel) -> Iterator[None]:
    """A context in which half-precision weights and buffers of a model are held in float32, which is exact.

    Raises:
        SurgeryError: there is not enough memory.
    """
    tensors = [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.dtype in HALF]
    if lacks := shortage((tensor.device, 2 * tensor.nbytes) for tensor in tensors):
        raise SurgeryError(f"whether the removal is exact cannot be told in half precision, and float32 {lacks}")
    with holding((tensor, tensor.data.float()) for tensor in tensors):
        yield
