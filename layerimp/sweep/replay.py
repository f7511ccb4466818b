"""Runs a model again from the middle: the blocks before give back what they gave.

Embeddings, masks and position tables are still made by the model itself, whatever its architecture. What has to hold
is that a block reads the residual stream and nothing else of the blocks before it. Where blocks share keys and values,
it does not; such a model is refused, since the result would not be that of removing a block either.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.equivalence import TOLERANCE, deviation
from layerimp.blocks.forward import block_input, giving_back, hidden_states, run, with_hidden
from layerimp.blocks.stack import probe_ids
from layerimp.errors import ModelError, one_line
from layerimp.stats import working_dtype
from layerimp.sweep.finite import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from layerimp.blocks.stack import Batch, BlockStack

TRIAL_TOKENS = 8


@dataclass
class Recorded:
    """What a backbone and its blocks did in one batch.

    Attributes:
        batch: The batch.
        inputs: What each block read [batch, seq, hidden], by position.
        outputs: What each block put out, in its own form, by position.
        output: What the backbone put out.
    """

    batch: Batch
    inputs: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    output: Any = None

    def added(self, position: int) -> Tensor:
        """What a block added to the residual stream [batch, seq, hidden], at least in float32."""
        before, after = self.inputs[position], hidden_states(self.outputs[position])
        dtype = working_dtype(before.dtype)
        return after.to(dtype) - before.to(dtype)

    def changed(self, position: int, by: float | Tensor) -> Tensor:
        """What a block puts out [batch, seq, hidden] when what it adds is scaled, or is `by` [hidden] instead."""
        before = self.inputs[position]
        added = by * self.added(position) if not isinstance(by, torch.Tensor) else by.to(before.device)
        return (before.to(added.dtype) + added).to(before.dtype)


class Replay:
    """Runs a backbone over a batch, and again from any of its blocks.

    Args:
        stack: The model's blocks.
        backbone: The part of the model to run.
        indices: The blocks that are recorded and run again. Positions below count these alone.

    Raises:
        ModelError: one of them reads more than the residual stream.
        NonFiniteError: one of them puts out a NaN or an infinity.
    """

    def __init__(self, stack: BlockStack, backbone: nn.Module, indices: Sequence[int]) -> None:
        self._backbone, self._indices, self._name = backbone, indices, type(stack.model).__name__
        self._blocks = [stack[index] for index in indices]
        self._prove(stack)

    def record(self, batch: Batch, when: str) -> Recorded:
        """Run a batch through the intact model.

        Raises:
            NonFiniteError: a block puts out a NaN or an infinity; names it, and `when` that was.
        """
        passed = self._run(batch)
        for position, read in passed.inputs.items():
            if read.shape[:-1] != batch["input_ids"].shape:
                raise ModelError(
                    f"block {self._indices[position]} of {self._name} reads hidden states {list(read.shape)}, and not "
                    "[batch, seq, hidden]"
                )
        watch = Watch(self._indices)
        watch.watch(batch["attention_mask"].bool())
        for output in passed.outputs.values():
            watch.put_out(output)
        watch.check_outputs(when)
        return passed

    def resume(self, passed: Recorded, position: int, state: Tensor) -> Any:
        """What the backbone puts out when the block at `position` puts out `state` [batch, seq, hidden]."""
        given = {self._blocks[before]: passed.outputs[before] for before in range(position)}
        given[self._blocks[position]] = with_hidden(passed.outputs[position], state)
        with giving_back(given):
            return run(self._backbone, passed.batch)

    def _run(self, batch: Batch) -> Recorded:
        passed = Recorded(batch)

        def record(
            position: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
        ) -> None:
            # What a block reads may still lie on the device of the one before it.
            passed.inputs[position] = block_input(args, kwargs).to(hidden_states(output).device)
            passed.outputs[position] = output

        with ExitStack() as hooks:
            for position, block in enumerate(self._blocks):
                hooks.callback(block.register_forward_hook(partial(record, position), with_kwargs=True).remove)
            passed.output = run(self._backbone, batch)
        if idle := sorted(set(range(len(self._blocks))) - passed.outputs.keys()):
            raise ModelError(f"block {self._indices[idle[0]]} of {self._name} does not run on text alone")
        return passed

    def _prove(self, stack: BlockStack) -> None:
        """Run each block with all others giving back what they gave, on a few tokens and some padding."""
        ids = probe_ids(stack, 2 * TRIAL_TOKENS).view(2, TRIAL_TOKENS)
        mask = torch.ones_like(ids)
        mask[1, TRIAL_TOKENS // 2 :] = 0
        passed = self.record({"input_ids": ids, "attention_mask": mask}, "in the trial before batch 0")
        # What a model keeps beside the residual stream is now that of other tokens, and from the last block to the
        # first each finds it so.
        self._run({"input_ids": ids.flip(0, 1), "attention_mask": mask})
        for position in reversed(range(len(self._indices))):
            if reason := self._why_not(passed, position):
                raise ModelError(
                    f"block {self._indices[position]} of {self._name} {reason}; the effect of one "
                    "block on the predictions cannot be told apart there"
                )

    def _why_not(self, passed: Recorded, position: int) -> str:
        """Why a block cannot be run without those before it; empty where it can."""
        others = {self._blocks[other]: output for other, output in passed.outputs.items() if other != position}
        try:
            with giving_back(others):
                alone = self._run(passed.batch)
        except Exception as error:  # whatever a block makes of what is missing
            return f"reads more than the residual stream: it fails without the other blocks ({one_line(error)})"
        pairs = [(passed.outputs[position], alone.outputs[position])]
        pairs.append((passed.output, alone.output))
        if any(deviation(hidden_states(one), hidden_states(other)) > TOLERANCE for one, other in pairs):
            return "reads more than the residual stream: it computes something else without the other blocks"
        return ""
