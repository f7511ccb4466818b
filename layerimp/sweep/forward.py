"""The forward sweep: one pass through the backbone, and the recorder of what its blocks do."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
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
from layerimp.sweep.cache import remembered
from layerimp.sweep.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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
            recorder.attach(stack, middles := drive.middles, undo)
            cache = None if drive.sites - self.ENDS else drive.cache
            for number, batch in enumerate(batches):
                recorder.watch(batch["attention_mask"].bool())
                for reader in readers:
                    reader.begin(number, recorder.mask, recorder.padded)
                with remembered(cache, number, middles, recorder.show_middle):
                    run(stack.backbone, batch)
                recorder.check_outputs(f"in batch {number}")
                drive.end_batch()


PARTS: dict[str, Part] = {"attn_out": "attn", "mlp_out": "mlp", "mlp_act": "mlp"}
"""The half of a block that has each inner site."""


class _Reader:
    """Collects the sites of one unit at a time, and emits the trace of a bundle as soon as the bundle is complete.

    An early trace is cheaper: what was just computed is still in the processor's cache, and memory is freed earlier.
    """

    mask: Tensor

    def __init__(self, series: Series) -> None:
        self.series, self.units, self.sites = series, series.units, series.sites
        self.reads_input = "block_in" in self.sites or bool(series.lookback)
        self.acts: dict[str, Tensor] = {}
        self.missing: list[frozenset[str]] = []

    def begin(self, number: int, mask: Tensor, padded: bool) -> None:
        """Begin a batch."""
        self.number, self.mask, self.padded = number, mask, padded
        self.inputs: dict[int, Tensor] = {}

    def tap(self, stack: BlockStack, taps: Sequence[Taps], undo: ExitStack) -> None:
        """Hook the sites inside the blocks, until `undo` ends.

        Raises:
            ModelError: a unit lacks the half of a block that has the site.
        """
        for position, unit in enumerate(self.units):
            owners = {one.part: one.block for one in unit.sublayers}
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
            self.inputs[position] = hidden
            self.inputs.pop(position - self.series.lookback - 1, None)
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
        # Some modules get all tokens of a batch in a single row.
        self._take(position, site, act.reshape(*self.mask.shape, act.shape[-1]))

    def leave(self, position: int, hidden: Tensor) -> None:
        if "block_out" in self.sites:
            self._take(position, "block_out", hidden)
        elif not self.sites:  # a scorer that reads nothing but the inputs of earlier blocks, or counts
            self._emit(position, hidden.device, frozenset(), {})

    def _take(self, position: int, site: str, act: Tensor) -> None:
        self.acts[site] = act
        self.missing = self.missing or list(self.series.bundles)
        whole = [bundle for bundle in self.missing if bundle <= self.acts.keys()]
        if not whole:
            return
        acts = self.acts
        self.missing = [bundle for bundle in self.missing if bundle not in whole]
        self.acts = {site: value for site, value in acts.items() if any(site in bundle for bundle in self.missing)}
        for bundle in whole:
            self._emit(position, act.device, bundle, acts)

    def _emit(self, position: int, device: torch.device, bundle: frozenset[str], acts: Mapping[str, Tensor]) -> None:
        # A block's input may still lie on the device of the previous block.
        read = {site: acts[site].to(device) for site in bundle}
        inputs = {at: value.to(device) for at, value in self.inputs.items()}
        self.series.emit(Trace(position, self.number, read, self.mask.to(device), self.padded, inputs))
