"""The contract of a sweep, which drives a model over the calibration set, and the traces that a sweep emits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from layerimp.steps import left

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence

    from torch import Tensor

    from layerimp.blocks.middle import Halves
    from layerimp.blocks.sites import Taps
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.steps import Step
    from layerimp.sweep.cache import BlockCache
    from layerimp.sweep.units import Show, Unit


@dataclass(frozen=True)
class Trace:
    """What one block did in one batch, or in some rows of a batch.

    A trace of a batch of two rows with two features, where the second row has two tokens and one position of padding:

        acts = {"block_out": torch.arange(12.0).view(2, 3, 2)}
        mask = torch.tensor([[True, True, True], [True, True, False]])
        trace = Trace(block=4, batch=0, acts=acts, mask=mask, padded=True)

    `trace.acts["block_out"]` is [2, 3, 2], and `trace.rows("block_out")` is [5, 2], without the padding.

    A seam has the same kind of trace as a block. Its input is the residual stream after the attention of one block, and
    its output is the stream after the attention of the next; `attn_out` belongs to the attention in the seam, `mlp_out`
    and `mlp_act` to the MLP in it. The trace of a single attention or MLP has only the sites of that half.

    Attributes:
        block: The block's position among the scored blocks, or the seam's position among the scored seams.
        batch: The batch's position in the calibration set.
        acts: The activations by site, [batch, seq, features] unless the sweep says otherwise, on the device of the
            mask. Borrowed: reduce them, never keep or change them.
        mask: [batch, seq]; False at padding, and in the sweep `Ablation` at positions without a target.
        padded: Whether the mask is False anywhere.
        inputs: The inputs of up to `lookback` blocks before this one, by position, on the same device. For a seam, the
            inputs of earlier seams. Borrowed.
        targets: The value of the sweep's target for each prediction in the batch [target], float64; None if the sweep
            has no target.
        extras: Further tensors that a sweep provides for this block, by name.
        gradients: For each parameter of the block, by name, the parameter and its gradient in this batch. If the unit
            lies in two blocks, the name begins with the block's index. Borrowed.
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
        """The activations where the mask is True [token, features]; no copy is made if it is True everywhere."""
        act = self.acts[site]
        return act[self.mask] if self.padded else act.flatten(0, 1)

    def lent(self) -> Iterator[tuple[str, Tensor]]:
        """The borrowed tensors, each with the expression by which a scorer reads it."""
        for name, tensors in (("acts", self.acts), ("inputs", self.inputs), ("extras", self.extras)):
            yield from ((f"{name}[{key!r}]", tensor) for key, tensor in tensors.items())
        for name, (parameter, gradient) in self.gradients.items():
            yield f"the parameter {name!r}", parameter
            yield f"the gradient of {name!r}", gradient
        yield "the mask", self.mask

    def versions(self) -> dict[str, int]:
        """How often each borrowed tensor has been written to, by the expression that reads it."""
        return {name: -1 if tensor.is_inference() else tensor._version for name, tensor in self.lent()}


@dataclass(frozen=True)
class Scouting:
    """Where a model has the sites inside its blocks.

    Attributes:
        sites: The sites that were looked for.
        taps: For each block, where to read the sites that it has.
    """

    sites: frozenset[str]
    taps: Sequence[Taps]

    @property
    def missing(self) -> dict[str, list[int]]:
        """For each site that some blocks lack, the indices of these blocks."""
        lacking = {site: [i for i, taps in enumerate(self.taps) if site not in taps] for site in sorted(self.sites)}
        return {site: blocks for site, blocks in lacking.items() if blocks}


@dataclass(frozen=True)
class Series:
    """Units that are scored side by side, and the function that takes their traces.

    Attributes:
        units: The units, in depth order. No two of them share a sublayer. `Trace.block` counts them.
        takers: For each set of sites that are read together, the function that takes the traces of a unit in a batch: a
            single one, or several, each with some rows of the batch. A trace may hold other sites as well.
        lookback: How many earlier units' inputs each trace has to hold.
    """

    units: Sequence[Unit]
    takers: Mapping[frozenset[str], Callable[[Trace], None]]
    lookback: int = 0

    @property
    def sites(self) -> frozenset[str]:
        """All sites that are read."""
        return frozenset().union(*self.takers)

    def emit(self, trace: Trace) -> None:
        """Emit a trace with all sites. A sweep may also emit traces earlier, one to each taker."""
        for take in self.takers.values():
            take(trace)


@dataclass(frozen=True)
class Drive:
    """What a sweep has to read while it drives a model, and where the traces go.

    Attributes:
        scouting: The result of `Sweep.scout` for the sites that are read, or for more sites.
        series: The series of units that are read in one pass, such as the blocks and the seams.
        end_batch: Called when a batch is through.
        end_block: Called, for a model that is offloaded, when all batches have passed through a block.
        removed: Steps to bypass, such as `[5, "17/18"]`. No unit holds anything of them.
        halves: The halves of every block that a unit divides, by its index.
        cache: What the blocks put out in earlier passes; a sweep may run its batches inside `remembered`.
        memory: What sweeps keep of the intact model on this calibration set, for later passes with other steps removed.
            A sweep uses itself as the key.
    """

    scouting: Scouting
    series: Sequence[Series]
    end_batch: Callable[[], None]
    end_block: Callable[[], None] = lambda: None
    removed: Sequence[Step] = ()
    halves: Mapping[int, Halves] = field(default_factory=dict)
    cache: BlockCache | None = None
    memory: MutableMapping[Hashable, Any] = field(default_factory=dict)

    @property
    def sites(self) -> frozenset[str]:
        """All sites that are read."""
        return frozenset().union(*(series.sites for series in self.series))

    @property
    def units(self) -> list[Unit]:
        """The units of all series."""
        return [unit for series in self.series for unit in series.units]

    @property
    def middles(self) -> dict[int, Halves]:
        """The halves of the blocks in whose middle a unit begins or ends, by index."""
        points = {point for unit in self.units for point in (unit.begin, unit.end)}
        return {point.block: self.halves[point.block] for point in sorted(points) if point.side == "middle"}

    def blocks(self, stack: BlockStack) -> list[int]:
        """The indices of the blocks that are not removed completely, in depth order."""
        return sorted({sublayer.block for sublayer in left(self.removed, len(stack))})

    @property
    def apart(self) -> bool:
        """Whether it was verified that the blocks read nothing of one another but the hidden states."""
        return self.cache is not None and self.cache.apart

    def remembered(self, number: int, show: Show) -> AbstractContextManager[None]:
        """A context in which the backbone runs one batch without the blocks whose outputs are known.

        Args:
            number: The batch's position in the calibration set.
            show: Called for each middle of these blocks that has to be read.
        """
        return nullcontext() if self.cache is None else self.cache.batch(number, self.middles, show)


class Sweep(ABC):
    """A way of driving the model. Equal sweeps, and sweeps that `union` joins, share one pass.

    Attributes:
        SITES: The sites that every sweep of its class offers.
        predicts: Whether it needs what the model predicts, and so a head; see `layerimp.blocks.head`.
        reads_offloaded: Whether it drives a model whose blocks are in memory one at a time; see `BlockStack.offloaded`.
        reads_intact: Whether it compares with the intact model, so that its values after a removal are not those of a
            model that never had the removed steps.
        separate: Whether it runs the model for each unit separately: what it shows of a unit does not depend on which
            other units are scored, and fewer units take less time.
    """

    SITES: ClassVar[frozenset[str]] = frozenset()
    predicts: ClassVar[bool] = False
    reads_offloaded: ClassVar[bool] = False
    reads_intact: ClassVar[bool] = False
    separate: ClassVar[bool] = False

    @property
    def sites(self) -> frozenset[str]:
        """The sites that this sweep offers if a model has them; empty if only `scout` can tell."""
        return self.SITES

    @property
    def reads_weights(self) -> bool:
        """Whether its values follow from weights as well: then a seam and a block that do the same may differ."""
        return False

    def union(self, other: Sweep) -> Sweep | None:
        """Return a sweep that serves this one and `other` in one pass, or None if they have to run separately."""
        return self if self == other else None

    def passes(self, units: int, rows: int) -> float:
        """Return about how many forward passes over the text the sweep takes; a backward pass counts as one or two.

        Args:
            units: The number of scored units.
            rows: The number of rows of the text.
        """
        return 1.0

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Find out where a model has `sites`, before it is driven.

        By default nothing inside the blocks is examined: every model has the sites of this sweep, and no others.
        """
        return Scouting(sites - self.sites, [{} for _ in stack])

    @abstractmethod
    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the model.

        Args:
            stack: The model's blocks.
            batches: The calibration set; the sweep may iterate over it more than once.
            drive: What the traces have to hold, and where they go.

        Raises:
            NonFiniteError: a block puts out a NaN or an infinity.
        """
