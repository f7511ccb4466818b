"""Runs a model again from one of its blocks on: the blocks before it return their stored outputs.

Embeddings, masks and position tables are still made by the model itself, whatever its architecture. What has to hold
is that a block reads the residual stream and nothing else of the blocks before it. This is not so if blocks share keys
and values; such a model is refused, since no model without one of these blocks would give the same result.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.equivalence import TOLERANCE, deviation
from layerimp.blocks.forward import giving_back, hidden_states, run, with_hidden
from layerimp.blocks.stack import TRIAL_TOKENS, probe_ids
from layerimp.errors import ModelError, one_line
from layerimp.stats import working_dtype
from layerimp.sweep.watching import Watched, watching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from layerimp.blocks.stack import Batch, BlockStack


@dataclass
class Recorded:
    """What a backbone and its blocks did in one batch.

    Attributes:
        batch: The batch.
        inputs: The residual stream [batch, seq, hidden] that each block reads.
        outputs: The output of each block, in the block's own form.
        output: The output of the backbone.
    """

    batch: Batch
    inputs: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    output: Any = None

    def after(self, index: int) -> Tensor:
        """The residual stream [batch, seq, hidden] after a block."""
        return hidden_states(self.outputs[index])

    def added(self, index: int) -> Tensor:
        """What a block added to the residual stream [batch, seq, hidden], in float32 or wider."""
        after = self.after(index)
        before = self.inputs[index].to(after.device)  # it may still lie on the device of the previous block
        dtype = working_dtype(before.dtype)
        return after.to(dtype) - before.to(dtype)

    def changed(self, index: int, by: float | Tensor) -> Tensor:
        """The output of a block [batch, seq, hidden] if what it adds is scaled by a number, or replaced by a tensor.

        Args:
            index: The block.
            by: The factor, or the tensor [hidden].
        """
        before = self.inputs[index].to(self.after(index).device)
        added = by * self.added(index) if not isinstance(by, torch.Tensor) else by.to(before.device)
        return (before.to(added.dtype) + added).to(before.dtype)


class Replay:
    """Runs a backbone over a batch, and again from the end of any of its blocks.

    Args:
        stack: The model's blocks.
        backbone: The part of the model to run.
        indices: The blocks that are recorded and run again.

    Raises:
        ModelError: one of the blocks reads more than the residual stream.
        NonFiniteError: one of the blocks puts out a NaN or an infinity.
    """

    def __init__(self, stack: BlockStack, backbone: nn.Module, indices: Sequence[int]) -> None:
        self._backbone, self._name = backbone, type(stack.model).__name__
        self._blocks = {index: stack[index] for index in indices}
        self._prove(stack)

    def record(self, batch: Batch, when: str, within: AbstractContextManager[None] | None = None) -> Recorded:
        """Run a batch through the intact model, and check that the recorded shapes and values can be used.

        Args:
            batch: The batch.
            when: The time of the run, for errors, such as `in batch 0`.
            within: The context of the run, in which blocks may return stored outputs.

        Raises:
            NonFiniteError: a block puts out a NaN or an infinity; the error names the block.
        """
        passed, watched = self._run(batch, within), Watched(batch["attention_mask"].bool(), when)
        for index, output in passed.outputs.items():
            read = passed.inputs[index]
            if read.shape[:-1] != watched.mask.shape:
                shape = f"{list(read.shape)}, and not [batch, seq, hidden]"
                raise ModelError(f"block {index} of {self._name} reads hidden states {shape}")
            watched.put_out(output)
        watched.check(list(self._blocks))
        return passed

    def alone(self, passed: Recorded, index: int) -> Recorded:
        """Run one block again on what it read, such as with other weights; all others return their stored outputs."""
        others = {self._blocks[other]: output for other, output in passed.outputs.items() if other != index}
        with giving_back(others):
            return self._run(passed.batch)

    def resume(self, passed: Recorded, index: int, state: Tensor) -> Any:
        """Return the backbone's output if the residual stream after a block is `state` [batch, seq, hidden]."""
        given = {self._blocks[before]: passed.outputs[before] for before in self._blocks if before < index}
        given[self._blocks[index]] = with_hidden(passed.outputs[index], state)
        with giving_back(given):
            return run(self._backbone, passed.batch)

    def _run(self, batch: Batch, within: AbstractContextManager[None] | None = None) -> Recorded:
        passed = Recorded(batch)
        with (
            watching(self._blocks, passed.inputs.__setitem__, passed.outputs.__setitem__),
            within or nullcontext(),
        ):
            passed.output = run(self._backbone, batch)
        if idle := sorted(self._blocks.keys() - passed.outputs.keys()):
            raise ModelError(f"block {idle[0]} of {self._name} does not run on text alone")
        return passed

    def _prove(self, stack: BlockStack) -> None:
        """Run each block on a few tokens and some padding, with all other blocks returning their stored outputs."""
        ids = probe_ids(stack, 2 * TRIAL_TOKENS).view(2, TRIAL_TOKENS)
        mask = torch.ones_like(ids)
        mask[1, TRIAL_TOKENS // 2 :] = 0
        passed = self.record({"input_ids": ids, "attention_mask": mask}, "in the trial before batch 0")
        # Anything that a model keeps beside the residual stream now comes from other tokens; going from the last block
        # to the first, every block meets that foreign state.
        self._run({"input_ids": ids.flip(0, 1), "attention_mask": mask})
        for index in reversed(self._blocks):
            if reason := self._why_not(passed, index):
                raise ModelError(
                    f"block {index} of {self._name} {reason}; the effect of one block on the predictions cannot be "
                    "told apart there"
                )

    def _why_not(self, passed: Recorded, index: int) -> str:
        """Tell why a block cannot be run without the blocks before it; empty if it can."""
        try:
            alone = self.alone(passed, index)
        except Exception as error:  # a block may fail in any way if something that it reads is missing
            return f"reads more than the residual stream: it fails without the other blocks ({one_line(error)})"
        pairs = [(passed.outputs[index], alone.outputs[index]), (passed.output, alone.output)]
        if any(deviation(hidden_states(first), hidden_states(second)) > TOLERANCE for first, second in pairs):
            return "reads more than the residual stream: it computes something else without the other blocks"
        return ""
