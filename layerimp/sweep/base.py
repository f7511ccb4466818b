"""The contract of a sweep, which drives a model over the calibration set, and the traces that a sweep emits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, MutableMapping, Sequence

    from torch import Tensor

    from layerimp.blocks.sites import Taps
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.sweep.cache import BlockCache


@dataclass(frozen=True)
class Trace:
    """What one block did in one batch, or in some rows of a batch.

    A trace of a batch of two rows with two features, where the second row has two tokens and one position of padding:

        acts = {"block_out": torch.arange(12.0).view(2, 3, 2)}
        mask = torch.tensor([[True, True, True], [True, True, False]])
        trace = Trace(block=4, batch=0, acts=acts, mask=mask, padded=True)

    `trace.acts["block_out"]` is [2, 3, 2], and `trace.rows("block_out")` is [5, 2], without the padding.

    Attributes:
        block: The block's position among the scored blocks.
        batch: The batch's position in the calibration set.
        acts: The activations by site, [batch, seq, features] unless the sweep says otherwise, on the device of the
            mask. Borrowed: reduce them, never keep or change them.
        mask: [batch, seq]; False at padding, and in the sweep `Ablation` at positions without a target.
        padded: Whether the mask is False anywhere.
        inputs: The inputs of up to `lookback` blocks before this one, by position, on the same device. Borrowed.
        targets: The value of the sweep's target for each prediction in the batch [target], float64; None if the sweep
            has no target.
        extras: Further tensors that a sweep provides for this block, by name.
        gradients: For each parameter of the block, by name, the parameter and its gradient in this batch. Borrowed.
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
class Drive:
    """What a sweep has to read while it drives a model, and where the traces go.

    Attributes:
        scouting: The result of `Sweep.scout` for the sites that are read, or for more sites.
        blocks: The scored blocks, by their indices in the intact model, in depth order. `Trace.block` counts them.
        takers: For each set of sites that are read together, the function that takes the traces of a block in a batch:
            a single one, or several, each with some rows of the batch. A trace may hold other sites as well.
        end_batch: Called when a batch is through.
        lookback: How many earlier scored blocks' inputs each trace has to hold.
        end_block: Called, for a model that is offloaded, when all batches have passed through a block.
        removed: The blocks to bypass. None of them is scored.
        cache: What the blocks put out in earlier passes; a sweep may run its batches inside `remembered`.
        memory: What sweeps keep of the intact model on this calibration set, for later passes without other blocks. A
            sweep uses itself as the key.
    """

    scouting: Scouting
    blocks: Sequence[int]
    takers: Mapping[frozenset[str], Callable[[Trace], None]]
    end_batch: Callable[[], None]
    lookback: int = 0
    end_block: Callable[[], None] = lambda: None
    removed: Collection[int] = ()
    cache: BlockCache | None = None
    memory: MutableMapping[Hashable, Any] = field(default_factory=dict)

    @property
    def sites(self) -> frozenset[str]:
        """All sites that are read."""
        return frozenset().union(*self.takers)

    def emit(self, trace: Trace) -> None:
        """Emit a trace with all sites. A sweep may also emit traces earlier, one to each taker."""
        for take in self.takers.values():
            take(trace)

    @property
    def apart(self) -> bool:
        """Whether it was verified that the blocks read nothing of one another but the hidden states."""
        return self.cache is not None and self.cache.apart

    def remembered(self, number: int) -> AbstractContextManager[None]:
        """A context in which the backbone runs one batch without the blocks whose outputs are known.

        Args:
            number: The batch's position in the calibration set.
        """
        return nullcontext() if self.cache is None else self.cache.batch(number)


class Sweep(ABC):
    """A way of driving the model. Equal sweeps, and sweeps that `union` joins, share one pass.

    Attributes:
        SITES: The sites that every sweep of its class offers.
        predicts: Whether it needs what the model predicts, and so a head; see `layerimp.blocks.head`.
        reads_offloaded: Whether it drives a model whose blocks are in memory one at a time; see `BlockStack.offloaded`.
        reads_intact: Whether it compares with the intact model, so that its values after a removal are not those of a
            model that never had the removed blocks.
        separate: Whether it runs the model for each block separately: what it shows of a block does not depend on which
            other blocks are scored, and fewer blocks take less time.
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

    def union(self, other: Sweep) -> Sweep | None:
        """Return a sweep that serves this one and `other` in one pass, or None if they have to run separately."""
        return self if self == other else None

    def passes(self, blocks: int, rows: int) -> float:
        """Return about how many forward passes over the text the sweep takes; a backward pass counts as one or two.

        Args:
            blocks: The number of scored blocks.
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
