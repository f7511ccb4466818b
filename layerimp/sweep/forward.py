"""The forward sweep: one pass through the backbone, and the recorder of what its blocks do."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import block_input, hidden_states, run
from layerimp.blocks.sites import Tap, Taps, find_taps
from layerimp.blocks.stack import Batch
from layerimp.errors import ModelError
from layerimp.steps import Part, named
from layerimp.sweep.base import Drive, Scouting, Series, Sweep, Trace, Work
from layerimp.sweep.block_by_block import block_by_block
from layerimp.sweep.cache import remembered
from layerimp.sweep.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack


@dataclass(frozen=True)
class Forward(Sweep):
    """One pass through the backbone, without the head: no logits are computed.

    Sites: `block_in` and `block_out` [batch, seq, hidden]; `attn_out` and `mlp_out` [batch, seq, hidden], what each
    branch adds to the residual stream; `mlp_act` [batch, seq, intermediate], the neurons: the input of the MLP's down
    projection.
    """

    ENDS: ClassVar[frozenset[str]] = frozenset({"block_in", "block_out"})
    SITES: ClassVar[frozenset[str]] = ENDS | {"attn_out", "mlp_out", "mlp_act"}
    reads_offloaded: ClassVar[bool] = True

    def work(self, num_units: int) -> Work:
        """One pass of the backbone."""
        return Work(1)

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Find the sites inside the blocks by a trial, if any of them is asked for."""
        inner = sites - self.ENDS
        return Scouting(inner, find_taps(stack) if inner else [{} for _ in stack])

    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the backbone; see `Sweep.drive`."""
        for site, blocks in drive.scouting.missing.items():
            if site in drive.sites:
                raise ModelError(f"block {blocks[0]} of {type(stack.model).__name__} has no site {site!r}")
        with ExitStack() as undo, torch.no_grad():  # unlike inference mode, it counts writes to a tensor
            undo.enter_context(bypassed(stack, drive.removed, idle=drive.cache is not None and drive.cache.apart))
            readers = [_Reader(series) for series in drive.series]
            recorder = Recorder(drive.blocks(stack), readers)
            for reader in readers:
                reader.tap(stack, drive.scouting.taps, undo)
            recorder.attach(stack, drive.middles, undo)
            course = _Course(drive, recorder, readers)
            if stack.offloaded:
                block_by_block(stack, batches, course, drive.end_block)
                return
            cache = None if drive.sites - self.ENDS else drive.cache
            for number, batch in enumerate(batches):
                course.begin(number, batch)
                with remembered(cache, number, drive.middles, recorder.show_middle):
                    run(stack.backbone, batch)
                course.check(number)
                course.end()


class _Course:
    """What is known of each batch on its way through the blocks.

    Args:
        drive: What is read, and who takes it.
        recorder: Shows where units begin and end.
        readers: The readers of the series.
    """

    def __init__(self, drive: Drive, recorder: Recorder, readers: Sequence[_Reader]) -> None:
        self._drive, self._recorder, self._readers = drive, recorder, readers

    def begin(self, number: int, batch: Batch) -> None:
        """A batch begins."""
        self._recorder.watch(batch["attention_mask"].bool())
        for reader in self._readers:
            reader.begin(number, self._recorder.mask, self._recorder.padded)

    def check(self, number: int) -> None:
        """Look at what the blocks put out so far for the batch at hand.

        Raises:
            NonFiniteError: it holds a NaN or an infinity.
        """
        self._recorder.check_outputs(f"in batch {number}")

    def end(self) -> None:
        """The batch at hand is through."""
        self._drive.end_batch()

    def left(self) -> Callable[[], None]:
        """Suspend the current batch, and return a function to call before it continues."""
        watched, read = self._recorder.batch, [reader.batch for reader in self._readers]

        def resume() -> None:
            self._recorder.batch = watched
            for reader, batch in zip(self._readers, read, strict=True):
                reader.batch = batch

        return resume


PARTS: dict[str, Part] = {"attn_out": "attn", "mlp_out": "mlp", "mlp_act": "mlp"}
"""The half of a block that has each inner site."""


@dataclass
class _Read:
    """What a reader knows of one batch.

    Attributes:
        number: The batch's position in the calibration set.
        mask: Which of its tokens are real [batch, seq].
        padded: Whether any is not.
        inputs: The inputs of earlier units that later ones ask for, by position.
        acts: The sites of the unit at hand that some bundle still needs.
        missing: The bundles of the unit at hand that are not yet whole.
    """

    number: int
    mask: Tensor
    padded: bool
    inputs: dict[int, Tensor] = field(default_factory=dict)
    acts: dict[str, Tensor] = field(default_factory=dict)
    missing: list[frozenset[str]] = field(default_factory=list)


class _Reader:
    """Collects the sites of one unit at a time, and emits the trace of a bundle as soon as the bundle is complete.

    An early trace is cheaper: what was just computed is still in the processor's cache, and memory is freed earlier.
    """

    batch: _Read

    def __init__(self, series: Series) -> None:
        self.series, self.units, self.sites = series, series.units, series.sites
        self.reads_input = "block_in" in self.sites or bool(series.lookback)

    def begin(self, number: int, mask: Tensor, padded: bool) -> None:
        """A batch begins."""
        self.batch = _Read(number, mask, padded)

    def tap(self, stack: BlockStack, taps: Sequence[Taps], undo: ExitStack) -> None:
        """Hook the sites inside the blocks, until `undo` ends.

        Raises:
            ModelError: a unit lacks the half of a block that has the site.
        """
        for position, unit in enumerate(self.units):
            owners = {sublayer.part: sublayer.block for sublayer in unit.sublayers}
            for site in self.sites & PARTS.keys():
                if PARTS[site] not in owners:
                    raise ModelError(f"{named([unit.step])} has no site {site!r}")
                index = owners[PARTS[site]]
                tap = taps[index][site]
                module, hook = stack[index].get_submodule(tap.path), partial(self._tapped, position, site, tap)
                if tap.side == "input":
                    undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
                else:
                    undo.callback(module.register_forward_hook(hook).remove)

    def enter(self, position: int, hidden: Tensor) -> None:
        if self.series.lookback:
            self.batch.inputs[position] = hidden
            self.batch.inputs.pop(position - self.series.lookback - 1, None)
        if "block_in" in self.sites:
            self._take(position, "block_in", hidden)

    def _tapped(
        self, position: int, site: str, tap: Tap, _module: nn.Module, args: tuple[Any, ...], other: Any
    ) -> None:
        """Take a module's input or output; `other` is the keyword arguments if the input is read, else the output."""
        act = block_input(args, other) if tap.side == "input" else hidden_states(other)
        if tap.scale != 1.0:
            act = act * tap.scale
        elif tap.overwritten:
            act = act.clone()
        # Some modules see the tokens of a batch in one row.
        self._take(position, site, act.reshape(*self.batch.mask.shape, act.shape[-1]))

    def leave(self, position: int, hidden: Tensor) -> None:
        if "block_out" in self.sites:
            self._take(position, "block_out", hidden)
        elif not self.sites:  # a scorer that reads nothing but the inputs of earlier blocks, or counts
            self._emit(position, hidden.device, frozenset(), {})

    def _take(self, position: int, site: str, act: Tensor) -> None:
        batch, acts = self.batch, self.batch.acts
        acts[site] = act
        batch.missing = batch.missing or list(self.series.bundles)
        whole = [bundle for bundle in batch.missing if bundle <= acts.keys()]
        if not whole:
            return
        batch.missing = [bundle for bundle in batch.missing if bundle not in whole]
        batch.acts = {site: value for site, value in acts.items() if any(site in bundle for bundle in batch.missing)}
        for bundle in whole:
            self._emit(position, act.device, bundle, acts)

    def _emit(self, position: int, device: torch.device, bundle: frozenset[str], acts: Mapping[str, Tensor]) -> None:
        # A block's input may still lie on the device of the previous block.
        read = {site: acts[site].to(device) for site in bundle}
        batch = self.batch
        inputs = {at: value.to(device) for at, value in batch.inputs.items()}
        self.series.emit(Trace(position, batch.number, read, batch.mask.to(device), batch.padded, inputs))
