"""The forward sweep: one pass through the backbone, and the reader of what its blocks do."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import block_input, hidden_states, run
from layerimp.blocks.sites import Tap, find_taps
from layerimp.blocks.stack import Batch
from layerimp.errors import ModelError
from layerimp.steps import Part, named
from layerimp.sweep.base import Drive, Scouting, Series, Sweep
from layerimp.sweep.block_by_block import block_by_block
from layerimp.sweep.recorder import Passing, Reader, Recorder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

PARTS: dict[str, Part] = {"attn_out": "attn", "mlp_out": "mlp", "mlp_act": "mlp"}
"""The half of a block that has each inner site."""


@dataclass(frozen=True)
class Forward(Sweep):
    """One pass through the backbone, without the head: no logits are computed.

    Sites: `block_in` and `block_out` [batch, seq, hidden]; `attn_out` and `mlp_out` [batch, seq, hidden], what each
    branch adds to the residual stream; `mlp_act` [batch, seq, intermediate], the neurons: the input of the MLP's down
    projection.
    """

    SITES: ClassVar[frozenset[str]] = frozenset({"block_in", "block_out", *PARTS})
    reads_offloaded: ClassVar[bool] = True

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Find the sites inside the blocks by a trial, if any of them is asked for."""
        inner = sites & PARTS.keys()
        return Scouting(inner, find_taps(stack) if inner else [{} for _ in stack])

    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the backbone; see `Sweep.drive`."""
        for site, blocks in drive.scouting.missing.items():
            if site in drive.sites:
                raise ModelError(f"block {blocks[0]} of {type(stack.model).__name__} has no site {site!r}")
        with ExitStack() as undo, torch.no_grad():  # unlike inference mode, it counts writes to a tensor
            undo.enter_context(bypassed(stack, drive.removed, idle=drive.apart))
            recorder = Recorder(stack, drive, _Reader)
            _tap(stack, drive, recorder, undo)
            undo.enter_context(recorder.watching())
            if stack.offloaded:
                block_by_block(stack, batches, recorder, drive)
                return
            inner = bool(drive.sites & PARTS.keys())  # a block whose output is known shows nothing inside
            for number, batch in enumerate(batches):
                recorder.begin(number, batch["attention_mask"].bool())
                with nullcontext() if inner else drive.remembered(number, recorder.show):
                    run(stack.backbone, batch)
                recorder.check()
                drive.end_batch()


def _tap(stack: BlockStack, drive: Drive, recorder: Recorder[_Reader], undo: ExitStack) -> None:
    """Hook the sites inside the blocks, until `undo` ends.

    Raises:
        ModelError: a unit lacks the half of a block that has the site.
    """

    def take(at: tuple[int, int, str], tap: Tap, _module: nn.Module, args: tuple[Any, ...], other: Any) -> None:
        """Take a module's input or output; `other` is the keyword arguments if the input is read, else the output."""
        act = block_input(args, other) if tap.side == "input" else hidden_states(other)
        if tap.scale != 1.0:
            act = act * tap.scale
        elif tap.overwritten:
            act = act.clone()
        which, position, site = at
        # Some modules see the tokens of a batch in one row.
        shape = *recorder.batch.mask.shape, act.shape[-1]
        recorder.batch.readers[which].take(position, site, act.reshape(shape))

    for which, series in enumerate(drive.series):
        for position, unit in enumerate(series.units):
            owners = {sublayer.part: sublayer.block for sublayer in unit.sublayers}
            for site in series.sites & PARTS.keys():
                if PARTS[site] not in owners:
                    raise ModelError(f"{named([unit.step])} has no site {site!r}")
                index = owners[PARTS[site]]
                tap = drive.scouting.taps[index][site]
                module, hook = stack[index].get_submodule(tap.path), partial(take, (which, position, site), tap)
                if tap.side == "input":
                    undo.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
                else:
                    undo.enter_context(module.register_forward_hook(hook))


class _Reader(Reader):
    """Collects the sites of one unit at a time, and emits a trace as soon as sites that are read together are known.

    An early trace is cheaper: what was just computed is still in the processor's cache.
    """

    def __init__(self, series: Series, batch: Passing[Any]) -> None:
        super().__init__(series, batch)
        self._acts: dict[str, Tensor] = {}
        self._inputs: dict[int, Tensor] = {}

    def take(self, position: int, site: str, hidden: Tensor) -> None:
        lookback = self.series.lookback
        if site == "block_in" and lookback:
            self._inputs[position] = hidden
            self._inputs.pop(position - lookback - 1, None)
        acts = self._acts | {site: hidden}
        for sites, take in self.series.takers.items():
            # A scorer may read nothing but the inputs of earlier blocks, or count: it takes a trace at the unit's end.
            if site in (sites or {"block_out"}) and sites <= acts.keys():
                take(self.trace(position, {each: acts[each] for each in sites}, self._inputs, hidden.device))
        missing = [sites for sites in self.series.takers if not sites <= acts.keys()]
        self._acts = {each: act for each, act in acts.items() if any(each in sites for sites in missing)}
