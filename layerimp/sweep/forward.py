"""The forward sweep: one pass through the backbone, and the reader of what its blocks do."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import block_input, hidden_states, run
from layerimp.blocks.sites import Tap, find_taps
from layerimp.blocks.stack import Batch
from layerimp.errors import ModelError
from layerimp.sweep.base import Drive, Scouting, Sweep
from layerimp.sweep.block_by_block import block_by_block
from layerimp.sweep.recorder import Reader, Recorder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

INNER = frozenset({"attn_out", "mlp_out", "mlp_act"})
"""The sites inside a block."""


@dataclass(frozen=True)
class Forward(Sweep):
    """One pass through the backbone, without the head: no logits are computed.

    Sites: `block_in` and `block_out` [batch, seq, hidden]; `attn_out` and `mlp_out` [batch, seq, hidden], what each
    branch adds to the residual stream; `mlp_act` [batch, seq, intermediate], the neurons: the input of the MLP's down
    projection.
    """

    SITES: ClassVar[frozenset[str]] = frozenset({"block_in", "block_out", *INNER})
    reads_offloaded: ClassVar[bool] = True

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Find the sites inside the blocks by a trial, if any of them is asked for."""
        inner = sites & INNER
        return Scouting(inner, find_taps(stack) if inner else [{} for _ in stack])

    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the backbone; see `Sweep.drive`."""
        for site, blocks in drive.scouting.missing.items():
            if site in drive.sites:
                raise ModelError(f"block {blocks[0]} of {type(stack.model).__name__} has no site {site!r}")
        with ExitStack() as undo, torch.no_grad():  # unlike inference mode, it counts writes to a tensor
            undo.enter_context(bypassed(stack, drive.removed, idle=drive.apart))
            tapped = drive.scouting.sites & drive.sites
            recorder = Recorder(stack, drive, _Reader, tapped)
            for index, position in recorder.positions.items():
                for site in tapped:
                    _tap(stack[index], drive.scouting.taps[index][site], (position, site), recorder, undo)
            undo.enter_context(recorder.watching())
            if stack.offloaded:
                block_by_block(stack, batches, recorder, drive)
                return
            for number, batch in enumerate(batches):
                recorder.begin(number, batch["attention_mask"].bool())
                # A block whose output is known shows nothing inside.
                with nullcontext() if tapped else drive.remembered(number):
                    run(stack.backbone, batch)
                recorder.check()
                drive.end_batch()


def _tap(block: nn.Module, tap: Tap, at: tuple[int, str], recorder: Recorder[_Reader], undo: ExitStack) -> None:
    """Hook a site inside a block, until `undo` ends; `at` is the position of the block, and the site."""

    def take(_module: nn.Module, args: tuple[Any, ...], other: Any) -> None:
        """Take a module's input or output; `other` is the keyword arguments if the input is read, else the output."""
        act = block_input(args, other) if tap.side == "input" else hidden_states(other)
        if tap.scale != 1.0:
            act = act * tap.scale
        elif tap.overwritten:
            act = act.clone()
        # Some modules see the tokens of a batch in one row.
        shape = *recorder.batch.mask.shape, act.shape[-1]
        recorder.batch.take(*at, act.reshape(shape))

    module = block.get_submodule(tap.path)
    if tap.side == "input":
        undo.enter_context(module.register_forward_pre_hook(take, with_kwargs=True))
    else:
        undo.enter_context(module.register_forward_hook(take))


class _Reader(Reader):
    """Collects the sites of one block at a time, and emits a trace as soon as sites that are read together are known.

    An early trace is cheaper: what was just computed is still in the processor's cache.
    """

    def __init__(self, drive: Drive, number: int, mask: Tensor) -> None:
        super().__init__(drive, number, mask)
        self._acts: dict[str, Tensor] = {}
        self._inputs: dict[int, Tensor] = {}

    def take(self, position: int, site: str, hidden: Tensor) -> None:
        lookback = self.drive.lookback
        if site == "block_in" and lookback:
            self._inputs[position] = hidden
            self._inputs.pop(position - lookback - 1, None)
        acts = self._acts | {site: hidden}
        for sites, take in self.drive.takers.items():
            # A scorer may read nothing but the inputs of earlier blocks, or count: it takes a trace at the block's end.
            if site in (sites or {"block_out"}) and sites <= acts.keys():
                take(self.trace(position, {each: acts[each] for each in sites}, self._inputs, hidden.device))
        missing = [sites for sites in self.drive.takers if not sites <= acts.keys()]
        self._acts = {each: act for each, act in acts.items() if any(each in sites for sites in missing)}
