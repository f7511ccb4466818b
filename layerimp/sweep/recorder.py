"""Shows a sweep's readers what the blocks read and put out, while a model runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from layerimp.indices import kept_blocks
from layerimp.sweep.base import Drive, Trace
from layerimp.sweep.watching import Watched, watching

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from layerimp.blocks.stack import BlockStack

R = TypeVar("R", bound="Reader")


class Reader(Watched):
    """A batch, or some rows of one, on its way through the blocks; collects their sites and emits their traces.

    Args:
        drive: What is read, and where the traces go.
        number: The batch's position in the calibration set.
        mask: Which of its tokens are real [batch, seq].

    Attributes:
        number: The batch's position in the calibration set.
        targets: The value of the target for each prediction [target]; None if the sweep has no target.
        extras: Further tensors that the sweep provides, by name.
    """

    def __init__(self, drive: Drive, number: int, mask: Tensor) -> None:
        super().__init__(mask, f"in batch {number}")
        self.drive, self.number = drive, number
        self.targets: Tensor | None = None
        self.extras: Mapping[str, Tensor] = {}

    @abstractmethod
    def take(self, position: int, site: str, hidden: Tensor) -> None:
        """Take what the scored block at a position has at a site."""

    def trace(
        self,
        position: int,
        acts: Mapping[str, Tensor],
        inputs: Mapping[int, Tensor],
        device: torch.device,
        gradients: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({}),
    ) -> Trace:
        """Return the trace of a block, on one device: a block's input may lie on the device of the previous block."""
        return Trace(
            block=position,
            batch=self.number,
            acts={site: act.to(device) for site, act in acts.items()},
            mask=self.mask.to(device),
            padded=self.padded,
            inputs={at: value.to(device) for at, value in inputs.items()},
            targets=self.targets,
            extras=dict(self.extras),
            gradients=gradients,
        )


class Recorder(Generic[R]):
    """Shows the scored blocks to a reader for each batch, and watches the outputs of all blocks.

    Args:
        stack: The model's blocks.
        drive: What is read, and where the traces go.
        reader: Makes the reader of a batch.
        tapped: The sites that the sweep reads elsewhere than at the beginning and the end of a block.

    Attributes:
        blocks: The blocks that are not removed, by index.
        positions: The position of each scored block, by its index.
        batch: The batch that is on its way through the blocks.
    """

    batch: R

    def __init__(self, stack: BlockStack, drive: Drive, reader: type[R], tapped: Collection[str] = ()) -> None:
        self.blocks = {index: stack[index] for index in kept_blocks(drive.removed, len(stack))}
        self.positions = {index: position for position, index in enumerate(drive.blocks)}
        self._drive, self._reader, self._tapped = drive, reader, tapped

    def begin(self, number: int, mask: Tensor) -> None:
        """Begin a batch, or some rows of one; its `mask` [batch, seq] tells which tokens are real."""
        self.batch = self._reader(self._drive, number, mask)

    def watching(self) -> AbstractContextManager[None]:
        """A context in which the blocks are read."""
        return watching(self.blocks, self._read, self._put_out)

    def _read(self, index: int, hidden: Tensor) -> None:
        self._show(index, "block_in", hidden)

    def _put_out(self, index: int, output: Any) -> None:
        self._show(index, "block_out", self.batch.put_out(output))

    def _show(self, index: int, site: str, hidden: Tensor) -> None:
        if index in self.positions and site not in self._tapped:
            self.batch.take(self.positions[index], site, hidden)

    def check(self) -> None:
        """Check the outputs of the blocks so far for the current batch.

        Raises:
            ModelError: no block was called.
            NonFiniteError: an output holds a NaN or an infinity.
        """
        self.batch.check(list(self.blocks))
