"""Shows the readers of a sweep the residual stream where units begin and end, while a model runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from layerimp.sweep.base import Drive, Series, Trace
from layerimp.sweep.units import Point
from layerimp.sweep.watching import Watched, watching

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from layerimp.blocks.stack import BlockStack

R = TypeVar("R", bound="Reader")


class Passing(Watched, Generic[R]):
    """A batch, or some rows of one, on its way through the blocks, with a reader for each series of units.

    Args:
        number: The batch's position in the calibration set.
        mask: Which of its tokens are real [batch, seq].
        series: The series that are read.
        reader: Makes the reader of a series.

    Attributes:
        number: The batch's position in the calibration set.
        readers: The readers, one for each series.
        targets: The value of the target for each prediction [target]; None if the sweep has no target.
        extras: Further tensors that the sweep provides, by name.
    """

    def __init__(self, number: int, mask: Tensor, series: Iterable[Series], reader: type[R]) -> None:
        super().__init__(mask, f"in batch {number}")
        self.number = number
        self.readers = [reader(own, self) for own in series]
        self.targets: Tensor | None = None
        self.extras: Mapping[str, Tensor] = {}


class Reader(ABC):
    """Reads the units of one series in one batch, and emits their traces.

    Args:
        series: The series.
        batch: The batch.
    """

    def __init__(self, series: Series, batch: Passing[Any]) -> None:
        self.series, self.batch = series, batch

    @abstractmethod
    def take(self, position: int, site: str, hidden: Tensor) -> None:
        """Take what a unit has at a site; `block_in` is the residual stream where it begins, `block_out` at its end."""

    def trace(
        self,
        position: int,
        acts: Mapping[str, Tensor],
        inputs: Mapping[int, Tensor],
        device: torch.device,
        gradients: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({}),
    ) -> Trace:
        """Return the trace of a unit, on one device: a block's input may lie on the device of the previous block."""
        batch = self.batch
        return Trace(
            block=position,
            batch=batch.number,
            acts={site: act.to(device) for site, act in acts.items()},
            mask=batch.mask.to(device),
            padded=batch.padded,
            inputs={at: value.to(device) for at, value in inputs.items()},
            targets=batch.targets,
            extras=dict(batch.extras),
            gradients=gradients,
        )


class Recorder(Generic[R]):
    """Shows the units of several series to their readers, and watches the outputs of all blocks.

    Where one unit ends and another begins, the end is shown first.

    Args:
        stack: The model's blocks.
        drive: What is read, and where the traces go.
        reader: Makes the reader of a series.

    Attributes:
        blocks: The blocks that are not removed completely, by index.
        batch: The batch that is on its way through the blocks.
    """

    batch: Passing[R]

    def __init__(self, stack: BlockStack, drive: Drive, reader: type[R]) -> None:
        self.blocks = {index: stack[index] for index in drive.blocks(stack)}
        self._drive, self._reader = drive, reader
        self._sites: dict[Point, list[tuple[int, int, str]]] = defaultdict(list)
        for site in ("block_out", "block_in"):
            for which, series in enumerate(drive.series):
                for position, unit in enumerate(series.units):
                    self._sites[unit.end if site == "block_out" else unit.begin].append((which, position, site))

    def begin(self, number: int, mask: Tensor) -> None:
        """Begin a batch, or some rows of one; its `mask` [batch, seq] tells which tokens are real."""
        self.batch = Passing(number, mask, self._drive.series, self._reader)

    def watching(self) -> AbstractContextManager[None]:
        """A context in which the blocks are read."""
        return watching(self.blocks, self._drive.middles, self.show, self._put_out)

    def show(self, point: Point, hidden: Tensor) -> None:
        """Show the residual stream [batch, seq, hidden] at a place."""
        for which, position, site in self._sites.get(point, ()):
            self.batch.readers[which].take(position, site, hidden)

    def _put_out(self, index: int, output: Any) -> None:
        self.show(Point(index, "output"), self.batch.put_out(output))

    def check(self) -> None:
        """Check the outputs of the blocks so far for the current batch.

        Raises:
            ModelError: no block was called.
            NonFiniteError: an output holds a NaN or an infinity.
        """
        self.batch.check(list(self.blocks))
