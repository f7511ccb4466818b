"""Shows readers the residual stream where units begin and end, while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from layerimp.blocks.forward import block_input
from layerimp.blocks.middle import watching_middle
from layerimp.sweep.finite import Watch
from layerimp.sweep.units import Point, Unit

if TYPE_CHECKING:
    from contextlib import ExitStack

    from torch import Tensor, nn

    from layerimp.blocks.middle import Halves
    from layerimp.blocks.stack import BlockStack

See = Callable[["Tensor"], None]


class Reader(Protocol):
    """Reads the units of one series.

    Attributes:
        units: The units.
        reads_input: Whether the reader is shown where units begin.
    """

    units: Sequence[Unit]
    reads_input: bool

    def enter(self, position: int, hidden: Tensor) -> None:
        """Take the residual stream `hidden` [batch, seq, hidden] where a unit begins."""

    def leave(self, position: int, hidden: Tensor) -> None:
        """Take the residual stream `hidden` [batch, seq, hidden] where a unit ends."""


class Recorder(Watch):
    """Shows the units of several series to their readers, and watches the outputs of all blocks.

    Where one unit ends and another begins, the end is shown first.

    Args:
        blocks: The indices of the blocks that are not removed completely.
        readers: The readers, one for each series.
    """

    def __init__(self, blocks: Sequence[int], readers: Sequence[Reader]) -> None:
        super().__init__(blocks)
        ends: dict[Point, list[See]] = {}
        begins: dict[Point, list[See]] = {}
        for reader in readers:
            for position, unit in enumerate(reader.units):
                ends.setdefault(unit.end, []).append(partial(reader.leave, position))
                if reader.reads_input:
                    begins.setdefault(unit.begin, []).append(partial(reader.enter, position))
        self._sees = {point: [*ends.get(point, []), *begins.get(point, [])] for point in ends.keys() | begins.keys()}

    def attach(self, stack: BlockStack, halves: Mapping[int, Halves], undo: ExitStack) -> None:
        """Hook the blocks, until `undo` ends.

        Args:
            stack: The model's blocks.
            halves: The halves of the blocks in whose middle a unit begins or ends.
            undo: The stack that removes the hooks.
        """
        for index in self.blocks:
            block = stack[index]
            if Point(index, "input") in self._sees:
                undo.callback(block.register_forward_pre_hook(partial(self._enter, index), with_kwargs=True).remove)
            if Point(index, "middle") in self._sees:
                undo.enter_context(watching_middle(block, halves[index], partial(self.show_middle, index)))
            undo.callback(block.register_forward_hook(partial(self._leave, index)).remove)

    def _enter(self, index: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = block_input(args, kwargs)
        for see in self._sees[Point(index, "input")]:
            see(hidden)

    def show_middle(self, index: int, hidden: Tensor) -> None:
        """Show the middle of a block [batch, seq, hidden]."""
        for see in self._sees[Point(index, "middle")]:
            see(hidden)

    def _leave(self, index: int, _block: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self.leave(index, self.put_out(output))

    def leave(self, index: int, hidden: Tensor) -> None:
        """Show a block's output [batch, seq, hidden]."""
        for see in self._sees.get(Point(index, "output"), []):
            see(hidden)
