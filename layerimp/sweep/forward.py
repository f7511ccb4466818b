"""One pass through the backbone, and the recorder of what its blocks do."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import block_input, hidden_states, run
from layerimp.blocks.sites import Tap, find_taps
from layerimp.blocks.stack import Batch
from layerimp.errors import ModelError
from layerimp.sweep.base import Drive, Scouting, Sweep, Trace
from layerimp.sweep.cache import remembered
from layerimp.sweep.finite import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack


@dataclass(frozen=True)
class Forward(Sweep):
    """One pass through the backbone, without the head: no logits are computed.

    Sites: `block_in` and `block_out` [batch, seq, hidden]; `attn_out` and `mlp_out`, what each branch adds to the
    residual stream; `mlp_act` [batch, seq, intermediate], the neurons: the input of the MLP's down projection.
    """

    ENDS: ClassVar[frozenset[str]] = frozenset({"block_in", "block_out"})
    SITES: ClassVar[frozenset[str]] = ENDS | {"attn_out", "mlp_out", "mlp_act"}

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Find the sites inside the blocks by a trial, where any is asked for."""
        inner = sites - self.ENDS
        return Scouting(inner, find_taps(stack) if inner else [{} for _ in stack])

    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the backbone; see `Sweep.drive`."""
        kept = drive.kept(stack)
        for site, blocks in drive.scouting.missing.items():
            if site in drive.sites:
                raise ModelError(f"block {blocks[0]} of {type(stack.model).__name__} has no site {site!r}")
        with ExitStack() as undo, torch.no_grad():  # which counts writes to a tensor, as inference mode does not
            undo.enter_context(bypassed(stack, drive.removed, idle=drive.cache is not None and drive.cache.apart))
            recorder = _Recorder(kept, drive)
            for position, index in enumerate(kept):
                recorder.attach(position, stack[index], drive.scouting.taps[index], undo)
            for number, batch in enumerate(batches):
                recorder.begin(number, batch["attention_mask"].bool())
                with remembered(None if drive.sites - self.ENDS else drive.cache, number):
                    run(stack.backbone, batch)
                recorder.check_outputs(f"in batch {number}")
                drive.end_batch()


class _Recorder(Watch):
    """Collects the sites of one block at a time, and emits the trace of a bundle of them as soon as it is whole.

    The sooner, the better: what was just computed is still in the cache, and memory is not held for longer.
    """

    def __init__(self, kept: Sequence[int], drive: Drive) -> None:
        super().__init__(kept)
        self.drive, self.sites, self.lookback = drive, drive.sites, drive.lookback
        self.acts: dict[str, Tensor] = {}
        self.missing: list[frozenset[str]] = []

    def begin(self, number: int, mask: Tensor) -> None:
        self.watch(mask)
        self.number = number
        self.inputs: dict[int, Tensor] = {}

    def attach(self, position: int, block: nn.Module, taps: Mapping[str, Tap], undo: ExitStack) -> None:
        if "block_in" in self.sites or self.lookback:
            undo.callback(block.register_forward_pre_hook(partial(self._enter, position), with_kwargs=True).remove)
        for site in self.sites & taps.keys():
            module, hook = block.get_submodule(taps[site].path), partial(self._tapped, position, site, taps[site])
            if taps[site].side == "input":
                undo.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            else:
                undo.callback(module.register_forward_hook(hook).remove)
        undo.callback(block.register_forward_hook(partial(self._leave, position)).remove)

    def _enter(self, position: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = block_input(args, kwargs)
        if self.lookback:
            self.inputs[position] = hidden
            self.inputs.pop(position - self.lookback - 1, None)
        if "block_in" in self.sites:
            self._take(position, "block_in", hidden)

    def _tapped(
        self, position: int, site: str, tap: Tap, _module: nn.Module, args: tuple[Any, ...], other: Any
    ) -> None:
        """A module was called: `other` is its keyword arguments where its input is read, and else its output."""
        act = block_input(args, other) if tap.side == "input" else hidden_states(other)
        if tap.scale != 1.0:
            act = act * tap.scale
        elif tap.overwritten:
            act = act.clone()
        # Some modules see the tokens of a batch in one row.
        self._take(position, site, act.reshape(*self.mask.shape, act.shape[-1]))

    def _leave(self, position: int, _block: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        out = self.put_out(output)
        if "block_out" in self.sites:
            self._take(position, "block_out", out)
        elif not self.sites:  # a scorer that reads nothing but the inputs of earlier blocks, or counts
            self._emit(position, out.device, frozenset(), {})

    def _take(self, position: int, site: str, act: Tensor) -> None:
        self.acts[site] = act
        self.missing = self.missing or list(self.drive.bundles)
        whole = [bundle for bundle in self.missing if bundle <= self.acts.keys()]
        if not whole:
            return
        acts = self.acts
        self.missing = [bundle for bundle in self.missing if bundle not in whole]
        self.acts = {site: value for site, value in acts.items() if any(site in bundle for bundle in self.missing)}
        for bundle in whole:
            self._emit(position, act.device, bundle, acts)

    def _emit(self, position: int, device: torch.device, bundle: frozenset[str], acts: Mapping[str, Tensor]) -> None:
        # What a block reads may still lie on the device of the one before it.
        read = {site: acts[site].to(device) for site in bundle}
        inputs = {at: value.to(device) for at, value in self.inputs.items()}
        self.drive.emit(Trace(position, self.number, read, self.mask.to(device), self.padded, inputs))
