"""What every way of driving a model over the calibration set has in common, and the traces that they emit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from layerimp.steps import left

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from layerimp.blocks.middle import Halves
    from layerimp.blocks.sites import Taps
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.steps import Step
    from layerimp.sweep.cache import BlockCache
    from layerimp.sweep.units import Unit


@dataclass(frozen=True)
class Trace:
    """What one block did in one batch, or in some rows of one.

    A seam is shown as a block: its input is the residual stream after the attention of one block, its output that after
    the attention of the next; `attn_out` is of the attention in it, `mlp_out` and `mlp_act` are of the MLP in it. So is
    a single attention or MLP, which has the sites of its own half alone.

    Attributes:
        block: The block's position among the scored ones, or the seam's among the seams.
        batch: The batch's position in the calibration set.
        acts: By site, [batch, seq, features], or as the sweep says, on the device of the mask. Borrowed: reduce, never
            keep or change.
        mask: [batch, seq]; False where there is padding, or in the sweep `Ablation` no target.
        padded: Whether the mask is False anywhere.
        inputs: The inputs of up to `lookback` blocks before this one, by position. Borrowed as well, and on the same
            device. Before a seam, those of earlier seams.
        targets: What the sweep's target is for each thing that the model predicts in the batch [target], float64; None
            where the sweep has no target.
        extras: What else a sweep has to tell at this block, by name.
        gradients: By the name of a parameter in the block, the parameter and its gradient in this batch. Borrowed. For
            what lies in two blocks, the name begins with the block's index.
    """

    block: int
    batch: int
    acts: Mapping[str, Tensor]
    mask: Tensor
    padded: bool
    inputs: Mapping[int, Tensor] = field(default_factory=dict)
    targets: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def rows(self, site: str) -> Tensor:
        """The activations of the tokens that count [token, features]; where all do, this copies nothing."""
        act = self.acts[site]
        return act[self.mask] if self.padded else act.flatten(0, 1)

    def lent(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are borrowed, each with the name by which it is read."""
        for name, tensors in (("acts", self.acts), ("inputs", self.inputs), ("extras", self.extras)):
            yield from ((f"{name}[{key!r}]", tensor) for key, tensor in tensors.items())
        for name, (parameter, gradient) in self.gradients.items():
            yield f"the parameter {name!r}", parameter
            yield f"the gradient of {name!r}", gradient
        yield "the mask", self.mask

    def versions(self) -> dict[str, int]:
        """How often each of them was written to."""
        return {name: -1 if tensor.is_inference() else tensor._version for name, tensor in self.lent()}


@dataclass(frozen=True)
class Scouting:
    """Where a model has the sites inside its blocks.

    Attributes:
        sites: The sites that were looked for.
        taps: For each block, where to read those that it has.
    """

    sites: frozenset[str]
    taps: Sequence[Taps]

    @property
    def missing(self) -> dict[str, list[int]]:
        """For each site that some blocks do not have, the blocks that lack it."""
        lacking = {site: [i for i, taps in enumerate(self.taps) if site not in taps] for site in sorted(self.sites)}
        return {site: blocks for site, blocks in lacking.items() if blocks}


@dataclass(frozen=True)
class Series:
    """Units that are scored side by side, and who takes their traces.

    Attributes:
        units: The units, in depth order, none of which shares a sublayer with another. `Trace.block` counts them.
        bundles: The sets of sites that are read together, none of which holds another. A sweep may emit one trace for
            each bundle as soon as its sites are known, so that memory is held for less long; otherwise each trace holds
            all sites.
        emit: Takes a trace per unit and batch, or several, each of some rows of the batch or of one bundle.
        lookback: How many earlier units' inputs the traces have to hold.
    """

    units: Sequence[Unit]
    bundles: Collection[frozenset[str]]
    emit: Callable[[Trace], None]
    lookback: int = 0

    @property
    def sites(self) -> frozenset[str]:
        """All sites that are read."""
        return frozenset().union(*self.bundles)


@dataclass(frozen=True)
class Drive:
    """What a sweep is to read while it drives a model, and who takes it.

    Attributes:
        scouting: What `Sweep.scout` found for the sites that are read, or for more.
        series: The series of units that are read in one pass, such as the blocks and the seams.
        end_batch: Called when a batch is through.
        end_block: Called, for a model that is streamed, when all batches have passed through a block.
        removed: Steps to bypass, such as `[5, "17/18"]`. No unit holds anything of them.
        halves: The halves of every block that a unit divides, by its index.
        cache: What the blocks put out in earlier passes; a sweep may run its batches inside `remembered`.
    """

    scouting: Scouting
    series: Sequence[Series]
    end_batch: Callable[[], None]
    end_block: Callable[[], None] = lambda: None
    removed: Sequence[Step] = ()
    halves: Mapping[int, Halves] = field(default_factory=dict)
    cache: BlockCache | None = None

    @property
    def sites(self) -> frozenset[str]:
        """All sites that are read."""
        return frozenset().union(*(one.sites for one in self.series))

    @property
    def units(self) -> list[Unit]:
        """The units of all series."""
        return [unit for one in self.series for unit in one.units]

    @property
    def middles(self) -> dict[int, Halves]:
        """The halves of the blocks in whose middle a unit begins or ends, by index."""
        points = {point for unit in self.units for point in (unit.begin, unit.end)}
        return {point.block: self.halves[point.block] for point in sorted(points) if point.side == "middle"}

    def blocks(self, stack: BlockStack) -> list[int]:
        """The indices of the blocks of which something is left, in depth order."""
        return sorted({one.block for one in left(self.removed, len(stack))})


@dataclass(frozen=True)
class Work:
    """About how much a sweep has to compute, in forward passes over the text.

    Attributes:
        backbone: Passes of the blocks.
        head: Passes of the head.
    """

    backbone: float
    head: float = 0.0


class Sweep(ABC):
    """A way of driving the model. Equal sweeps, and those that `union` joins, share one pass.

    Attributes:
        SITES: The sites that every sweep of its class offers.
        predicts: Whether it needs what the model predicts, and so a head; see `layerimp.blocks.head`.
        streams: Whether it drives a model whose blocks are in memory one at a time; see `BlockStack.streamed`.
    """

    SITES: ClassVar[frozenset[str]] = frozenset()
    predicts: ClassVar[bool] = False
    streams: ClassVar[bool] = False

    @property
    def sites(self) -> frozenset[str]:
        """The sites that it offers where a model has them; empty where only `scout` can tell."""
        return self.SITES

    @property
    def whole(self) -> bool:
        """Whether it needs the whole calibration set at once, so that no shards of it can be swept apart."""
        return False

    def union(self, other: Sweep) -> Sweep | None:
        """The sweep that serves both at once, or None if they have to run apart."""
        return self if self == other else None

    def work(self, num_units: int) -> Work | None:
        """About how much it computes for so many units, for estimates of the time; None where it cannot tell."""
        return None

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Find out where a model has `sites`, before it is driven.

        By default nothing is looked for inside the blocks: the sites of this sweep are there, and no others.
        """
        return Scouting(sites - self.sites, [{} for _ in stack])

    @abstractmethod
    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the model.

        Args:
            stack: The model's blocks.
            batches: The calibration set; it may be gone through more than once.
            drive: What the traces have to hold, and where they go.

        Raises:
            NonFiniteError: a block puts out a NaN or an infinity.
        """
