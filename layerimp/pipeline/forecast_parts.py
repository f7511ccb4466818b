"""What the forecasts of several commands have in common: ranges, passes, memory and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from layerimp.blocks.memory import free_bytes
from layerimp.healer import Room
from layerimp.models.dtypes import dtype_named, name_of
from layerimp.registry.attribution import attributing
from layerimp.report.results.part import Known, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from layerimp.blocks.stack import BlockStack
    from layerimp.healer import Decision, Healer, Scope
    from layerimp.pipeline.outline import Outline
    from layerimp.recipe import Permissions, Recipe
    from layerimp.scoring.passes import Pass
    from layerimp.steps import Cuts

ROUGHLY = "the times are estimates from one block with random weights, on the CPU; reality may be twice or half that"


def most_gaps(counts: Iterable[int], num_blocks: int, cuts: Cuts) -> int:
    """Return the most places at which some number of blocks or seams can be removed: none is beside another.

    Args:
        counts: The numbers that may be removed.
        num_blocks: The blocks of the intact model.
        cuts: What may be removed. A seam leaves the other halves of its two blocks.
    """
    per_block = 2 if cuts == "all" else 1
    return max(min(count, per_block * (num_blocks - count) + 1) for count in counts)


class Range(Part):
    """A number that may not be known exactly before the blocks are scored. If it is known, both ends are equal."""

    least: int | float
    """The smallest possible value."""
    most: int | float
    """The largest possible value."""

    @classmethod
    def of(cls, *values: float) -> Range:
        """Return the range of some values, rounded to six places."""
        return cls(least=round(min(values), 6), most=round(max(values), 6))


class PassForecast(Part):
    """A pass over the calibration text that some scorers share."""

    sweep: str
    """How the model is driven."""
    scorers: list[str]
    """The scorers that read it."""
    backbone: Known
    """The work in forward passes of the blocks, about; null if unknown."""
    head: Known
    """The work in forward passes of the head, about; null if unknown."""

    @classmethod
    def of(cls, shared: Pass, units: int, rows: int, *, labels: bool) -> PassForecast:
        """Describe a pass over a model with so many scored units, on a text of so many rows; see `Sweep.work`."""
        work = shared.sweep.work(units, rows, labels=labels)
        return cls(
            sweep=type(shared.sweep).__name__,
            scorers=list(dict.fromkeys(label for label, _ in shared.scorers)),
            backbone=None if work is None else work.backbone,
            head=None if work is None else work.head,
        )


class MemoryForecast(Part):
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
    ) -> MemoryForecast:
        """Forecast the memory for the weights of a recipe's model.

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
