"""Pruned models: what was removed, the size that is left, how they were healed, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from layerimp.fidelity.record import Fidelity
from layerimp.models.dtypes import stored_bytes
from layerimp.pruner import PrunePlan
from layerimp.report.results.contenders import OfContender
from layerimp.report.results.measures import Cost, Flips, Measured, Retained
from layerimp.report.results.part import Known, Number, Part
from layerimp.sizes.targets import UNITS, Reached

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack

Amount = int | float | str
"""What was asked for: a number of blocks, a share of them below 1, or in words a size, a quality, or named blocks."""
PLAN = "plan"
"""The amount of a run that removes what a plan says."""


class Size(Part):
    """The size of a model, or of a part of one."""

    blocks: int
    """Blocks."""
    parameters: int
    """Parameters; tied weights count once."""
    bytes: int
    """The bytes of the parameters in the stored dtype."""

    @classmethod
    def of(cls, stack: BlockStack) -> Size:
        """Return the size of a whole model; tied weights count once."""
        parameters = sum(p.numel() for p in stack.model.parameters())
        return cls(blocks=len(stack), parameters=parameters, bytes=stored_bytes(stack.model))

    def __sub__(self, other: Size) -> Size:
        return Size(
            blocks=self.blocks - other.blocks,
            parameters=self.parameters - other.parameters,
            bytes=self.bytes - other.bytes,
        )

    def share_of(self, whole: Size) -> dict[str, float]:
        """Return each number as a share of the number for `whole`."""
        return {name: value / getattr(whole, name) for name, value in self}


class RepairedGap(Part):
    """What a healer did at one gap."""

    gap: str
    """The gap, named by what was removed there, such as `blocks 6-9`."""
    removed: list[int]
    """The removed blocks."""
    done: str
    """What was done, in a word; `nothing` if the gap was left as it was."""
    why: str
    """Why something other than requested was done; else empty."""
    numbers: dict[str, float]
    """Numbers that describe it, such as a factor or a ridge."""


class TrainingText(Part):
    """The text that training read beside the calibration text."""

    source: str
    """The file or data set."""
    licence: str
    """The licence; empty if it is not known."""
    rows: int
    """The number of documents that were read, at least once."""
    hash: str
    """A hash of these documents, in their order."""


class Repaired(Part):
    """What a healer did, and the effect of healing."""

    gaps: list[RepairedGap]
    """What was done at each gap, in depth order."""
    loss: dict[str, float]
    """The mean loss per prediction, in nats, of the `intact`, `pruned` and `healed` model, on rows of the text that
    were used neither for the fit nor for any choice. `pruned` is the intact model without the removed blocks;
    `healed_before` is there only if the model had been healed before."""
    accuracy: dict[str, float] | None
    """The share of these rows that a classifier labels correctly; null for a language model."""
    distance: dict[str, Number] = Field(default={})
    """The mean divergences from the intact model in nats, on the rows that decide whether the result is kept:
    `divergence_before` and `divergence_after`; `repeated_before` and `repeated_after` in rows that hold the same tokens
    twice."""
    judging_rows: int
    """How many rows of documents that nothing else reads decided; 0 if rows of the healing text did."""
    recovered: Known
    """The share of the lost quality that came back (loss, or a classifier's accuracy), from the `pruned` to the
    `healed` model; null if nothing was lost."""
    training_text: TrainingText | None = Field(default=None, exclude_if=lambda text: text is None)
    """What was read of a further text by a training that was kept; left out if that is nothing."""


class Target(Part):
    """A size that was asked for."""

    asked: str
    """The value as it was written."""
    factor: bool
    """Whether this is a factor of the intact model's value."""
    unit: str
    """The unit of all numbers: parameters, bytes, or bytes per token."""
    limit: Number
    """The largest value that is allowed."""
    original: Number
    """The intact model's value."""

    @classmethod
    def of(cls, value: Reached) -> Target:
        """Return the target beside which a value was reached."""
        target = value.target
        return cls(
            asked=target.asked,
            factor=target.factor,
            unit=UNITS[target.quantity],
            limit=value.limit,
            original=value.original,
        )


class ReachedTarget(Part):
    """A pruned model's value beside a target."""

    value: Number
    """The model's value, in the target's unit."""
    one_less: Known
    """The value with one block less, which for a single block is the intact model's; null if there is no such plan."""

    @classmethod
    def of(cls, value: Reached) -> ReachedTarget:
        """Return the value that was reached."""
        return cls(value=value.value, one_less=value.less)


class PrunedModel(Part):
    """One pruned model."""

    draw: int
    """The number of the repeat."""
    plan: PrunePlan
    """What was removed, in order, and why; `layerimp.prune` applies it."""
    size: Size | None
    """The size of the pruned model; null if it is not evaluated yet."""
    metrics: dict[str, dict[str, Measured]]
    """The metrics of quality, by task and name."""
    footprint: dict[str, Cost]
    """The costs in time and space, by name."""
    fidelity: Fidelity | None
    """How far the model is from the intact one; null if that is not measured, or not yet."""
    healing: Repaired | None
    """What a healer did; null if the model is not healed, or not yet."""
    targets: dict[str, ReachedTarget]
    """By quantity, what the model reaches of each target."""
    checkpoint: str | None
    """The path of the checkpoint; null if the model is not kept."""

    @property
    def blocks(self) -> list[int]:
        """The removed blocks, in order."""
        return self.plan.blocks


class Stability(Part):
    """How far the repeats removed the same blocks."""

    jaccard: float
    """The Jaccard index of two repeats' sets, averaged over all pairs."""
    same: float
    """The share of the pairs whose sets are equal: the probability that another draw of text removes the same
    blocks."""


class Removal(OfContender):
    """What one pruner removed for one amount, chosen by the scores of one scorer: a model for each repeat."""

    pruner: str
    """The label of the pruner; empty for a plan that names none."""
    amount: Amount
    """What was asked for: a share of the blocks, below 1; their number; or in words a size such as `bytes=6GB`, a
    quality such as `keep=0.95`, named blocks such as `blocks=3,17/18`, or a `plan`."""
    models: list[PrunedModel]
    """The models, one for each repeat."""
    stability: Stability | None
    """How far the repeats removed the same; null for a single repeat, and for healed models."""
    retained: Retained | None
    """What the models retain; null if none is measured."""
    flips: dict[str, dict[str, Flips]]
    """By task and metric, how many answers are others than the intact model's, on average over the models; without
    metrics whose documents are not simply right or wrong."""
    notes: list[str]
    """Notes for a reader of the numbers of these models."""
