"""The memory that a command needs, by arithmetic, and what healers decide by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from layerimp.blocks.memory import free_bytes
from layerimp.healer import Room
from layerimp.models.dtypes import dtype_named, name_of
from layerimp.registry.attribution import attributing
from layerimp.report.results.part import Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from layerimp.blocks.stack import BlockStack
    from layerimp.healer import Decision, Healer, Scope
    from layerimp.pipeline.outline import Outline
    from layerimp.recipe import Permissions, Recipe


def most_gaps(counts: Iterable[int], num_blocks: int) -> int:
    """Return the most places at which some number of blocks can be removed: none is beside another.

    Args:
        counts: The numbers that may be removed.
        num_blocks: The blocks of the intact model.
    """
    return max(min(count, num_blocks - count + 1) for count in counts)


class Memory(Part):
    """The memory that the weights need. Activations need further memory."""

    device: str
    """The device of the model."""
    dtype: str
    """The dtype that the model computes in."""
    offloaded: bool
    """Whether the blocks are read one after another, so that few weights are held at a time."""
    weights: int
    """The bytes of the weights in that dtype, held at a time."""
    verifying: int
    """The bytes of the copy that verifies a checkpoint; 0 without one."""
    free: int
    """The bytes that are currently free on the device."""

    @classmethod
    def of(
        cls,
        outline: Outline,
        recipe: Recipe,
        permissions: Permissions,
        *,
        offloaded: bool = False,
        verifies: bool = False,
        beside: int = 0,
    ) -> Memory:
        """Return the memory for the weights of a recipe's model.

        Args:
            outline: The model.
            recipe: The recipe.
            permissions: Which code that came with data may run.
            offloaded: Whether the blocks stay in their files until they are needed.
            verifies: Whether a checkpoint is loaded beside the model.
            beside: The parameters of another model that is in memory as well.
        """
        place, dtype = outline.computed_in(recipe, permissions)
        held = outline.held_if_offloaded() if offloaded else outline.ledger.left(()).parameters
        return cls(
            device=str(place),
            dtype=name_of(dtype),
            offloaded=offloaded,
            weights=(held + beside) * dtype.itemsize,
            verifying=held * dtype.itemsize if verifies else 0,
            free=free_bytes(place),
        )

    def decisions(
        self, healers: Mapping[str, Healer], pruned: BlockStack, scope: Scope, *, shared: int = 0
    ) -> dict[str, Decision]:
        """Return what healers decide by the memory which the weights leave free, by their labels.

        Args:
            healers: The healers, by label; those that decide nothing are left out.
            pruned: The blocks of the model that is healed, on the meta device.
            scope: The size of the healing.
            shared: The bytes of the weights that are twice in memory only until both models are loaded.
        """
        room = Room(torch.device(self.device).type, max(0, self.free - self.weights + shared))
        decisions, outlined = {}, pruned.model.dtype
        nn.Module.to(pruned.model, dtype_named(self.dtype))
        try:
            for label, healer in healers.items():
                with attributing("healer", healer.name, type(healer)):
                    decisions[label] = healer.decide(pruned, scope, room)
        finally:
            nn.Module.to(pruned.model, outlined)
        return {label: decision for label, decision in decisions.items() if decision is not None}
