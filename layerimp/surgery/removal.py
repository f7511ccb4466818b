"""Removes blocks from a model in memory: exactly and reversibly, or not at all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from layerimp.blocks.equivalence import Probe, probes, stored_tensors
from layerimp.blocks.halves import halves_of
from layerimp.blocks.memory import shortage
from layerimp.blocks.modalities import IMAGE, MODALITIES, Modality
from layerimp.blocks.modes import holding, quiet
from layerimp.blocks.stack import BlockStack
from layerimp.errors import ModelError, SurgeryError
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import HALF
from layerimp.pruner import PrunePlan
from layerimp.steps import Step, checked_steps, kept_halves, named, simplest
from layerimp.surgery.application import composed, put_in_place
from layerimp.surgery.config_search import Shortened, shortened
from layerimp.surgery.proof import past, prove

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.middle import Halves
    from layerimp.surgery.kept import Pair

    Model = TypeVar("Model", bound=PreTrainedModel)


def prune(model: Model, blocks: Sequence[Step] | PrunePlan) -> Model:
    """Remove blocks from a model, in place.

    Args:
        model: The model; unchanged if the removal fails.
        blocks: Steps, such as `[5, "17/18"]`: the indices of blocks, or seams; or a plan.

    Returns:
        The same object. A new model built from its changed configuration has the same blocks.

    Raises:
        OptionError: a block does not exist, two steps overlap, or the plan is for another number of blocks.
        SurgeryError: the steps cannot be removed exactly; the error says why.
        NonFiniteError: the model gives a NaN or an infinity.
    """
    stack = find_blocks(model)
    steps = blocks.steps_for(len(stack)) if isinstance(blocks, PrunePlan) else blocks
    prepare(stack, steps).apply()
    return model


@contextmanager
def pruned(model: PreTrainedModel, blocks: Sequence[Step]) -> Iterator[PreTrainedModel]:
    """A context in which the model lacks `blocks`; at its end the model is as before. See `prune`."""
    with prepare(find_blocks(model), blocks).applied():
        yield model


def prepare(stack: BlockStack, blocks: Sequence[Step]) -> Removal:
    """Find the configuration of a model without `blocks`, and check that stock code builds the kept blocks from it.

    Nothing is changed yet. The slow part of a removal is done here, once; the result can be applied many times.

    Args:
        stack: The blocks of the model.
        blocks: The steps to remove: the indices of blocks, or seams such as `17/18`.

    Raises:
        OptionError: a block does not exist, or two steps overlap.
        SurgeryError: a block cannot be divided into halves, or stock code does not build the kept blocks; the error
            says what would be different.
    """
    steps = simplest(checked_steps(blocks, len(stack)))
    kept = kept_halves(steps, len(stack))
    if not kept:
        raise SurgeryError(f"removing all {len(stack)} blocks leaves no model")
    try:
        halves = halves_of(stack, {index for pair in kept if len(set(pair)) > 1 for index in pair})
    except ModelError as error:
        raise SurgeryError(f"{named(steps)} cannot be removed: {error}") from error
    removal = Removal(stack, steps, kept, halves, None, _probes(stack))
    for pair in kept:
        removal.block(pair)  # blocks that cannot be composed are refused before the slow part
    return replace(removal, shortened=shortened(stack, kept, halves)) if steps else removal


@dataclass(frozen=True)
class Removal:
    """A prepared removal, which can be applied and undone any number of times.

    Attributes:
        stack: The blocks of the intact model.
        steps: The removed steps, as blocks and seams in depth order.
        kept: The kept blocks, each as the blocks that its attention and its MLP come from.
        halves: The halves of the blocks of which only one half is kept, by index.
        shortened: The configuration of the kept blocks, and what follows from it; None if nothing is removed.
        probes: The inputs on which the pruned model is compared with the intact one.
    """

    stack: BlockStack
    steps: Sequence[Step]
    kept: Sequence[Pair]
    halves: Mapping[int, Halves]
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
        expected = [past(self.stack, self.steps, probe) for probe in self.probes]
        # Lists and tables outside the blocks with one entry per block may follow the attention or the MLP.
        lists = [[pair[half] for pair in self.kept] for half in (0, 1)]
        beside = bool(self.shortened.parallel or self.shortened.tables)
        for rows in lists if beside and lists[0] != lists[1] else lists[:1]:
            with ExitStack() as tried:
                try:
                    put_in_place(self.stack, self.shortened, list(map(self.block, self.kept)), rows, tried)
                    equal = [prove(self.stack, outputs, f"without {named(self.steps)}") for outputs in expected]
                except SurgeryError as error:
                    wrong = error
                else:
                    undo.push(tried.pop_all())
                    return all(equal) or expected[0].hidden.dtype not in HALF
        raise wrong

    def block(self, pair: Pair) -> nn.Module:
        """Return a kept block: a block of the model, or a new one composed of two halves.

        Raises:
            SurgeryError: the two halves cannot be composed.
        """
        attention, mlp = pair
        own: nn.Module = self.stack[attention]
        if attention == mlp:
            return own
        try:
            return composed(own, self.stack[mlp], (self.halves[attention], self.halves[mlp]))
        except SurgeryError as error:
            raise SurgeryError(
                f"{named(self.steps)} cannot be removed: blocks {attention} and {mlp} {error}"
            ) from error


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
