"""Runs a model again from one of its blocks on: the blocks before it return their stored outputs.

Embeddings, masks and position tables are still made by the model itself, whatever its architecture. What has to hold
is that a block reads the residual stream and nothing else of the blocks before it. This is not so if blocks share keys
and values; such a model is refused, since no model without one of these blocks would give the same result.

A run may also begin inside a block, between its attention and its MLP; that this is exact is verified in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.bypass import running_from
from layerimp.blocks.equivalence import TOLERANCE, deviation
from layerimp.blocks.forward import giving_back, hidden_states, run, with_hidden
from layerimp.blocks.stack import TRIAL_TOKENS, probe_ids
from layerimp.errors import ModelError, one_line
from layerimp.stats import working_dtype
from layerimp.sweep.units import Point, Show
from layerimp.sweep.watching import Watched, watching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from layerimp.blocks.middle import Halves
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.sweep.units import Unit

Within = Callable[[Show], AbstractContextManager[None]]
"""Makes the context of a run, in which the middles of blocks that are not computed are shown."""


@dataclass
class Recorded:
    """What a backbone and its blocks did in one batch.

    Attributes:
        batch: The batch.
        states: The residual stream [batch, seq, hidden] at the input of each block, and at the middles asked for.
        outputs: The output of each block, in the block's own form.
        output: The output of the backbone.
    """

    batch: Batch
    states: dict[Point, Tensor] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    output: Any = None

    def state(self, point: Point) -> Tensor:
        """The residual stream [batch, seq, hidden] at a point."""
        if point.side == "output":
            return hidden_states(self.outputs[point.block])
        return self.states[point]

    def added(self, unit: Unit) -> Tensor:
        """What a unit added to the residual stream [batch, seq, hidden], in float32 or wider."""
        after = self.state(unit.end)
        before = self.state(unit.begin).to(after.device)  # it may still lie on the device of the previous block
        dtype = working_dtype(before.dtype)
        return after.to(dtype) - before.to(dtype)

    def changed(self, unit: Unit, by: float | Tensor) -> Tensor:
        """The output of a unit [batch, seq, hidden] if what it adds is scaled by a number, or replaced by a tensor.

        Args:
            unit: The unit.
            by: The factor, or the tensor [hidden].
        """
        before = self.state(unit.begin).to(self.state(unit.end).device)
        added = by * self.added(unit) if not isinstance(by, torch.Tensor) else by.to(before.device)
        return (before.to(added.dtype) + added).to(before.dtype)


class Replay:
    """Runs a backbone over a batch, and again from the end of any of its blocks, or from the middle of some.

    Args:
        stack: The model's blocks.
        backbone: The part of the model to run.
        indices: The blocks that are recorded and run again.
        halves: The halves of the blocks whose middle is recorded as well, by index.

    Raises:
        ModelError: one of the blocks reads more than the residual stream.
        NonFiniteError: one of the blocks puts out a NaN or an infinity.
    """

    def __init__(
        self,
        stack: BlockStack,
        backbone: nn.Module,
        indices: Sequence[int],
        halves: Mapping[int, Halves] = MappingProxyType({}),
    ) -> None:
        self._backbone, self._name = backbone, type(stack.model).__name__
        self._blocks = {index: stack[index] for index in indices}
        self._halves = halves
        self._prove(stack)

    def record(self, batch: Batch, when: str, within: Within = lambda _show: nullcontext()) -> Recorded:
        """Run a batch through the intact model, and check that the recorded shapes and values can be used.

        Args:
            batch: The batch.
            when: The time of the run, for errors, such as `in batch 0`.
            within: The context of the run. It may return stored outputs of blocks, and then shows their middles.

        Raises:
            NonFiniteError: a block puts out a NaN or an infinity; the error names the block.
        """
        passed, watched = self._run(batch, within), Watched(batch["attention_mask"].bool(), when)
        for index, output in passed.outputs.items():
            read = passed.states[Point(index, "input")]
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

    def resume(self, passed: Recorded, point: Point, state: Tensor) -> Any:
        """Return the backbone's output if the residual stream at a middle or an end is `state` [batch, seq, hidden]."""
        given = {self._blocks[before]: passed.outputs[before] for before in self._blocks if before < point.block}
        with ExitStack() as undo:
            if point.side == "middle":
                undo.enter_context(running_from(self._blocks[point.block], self._halves[point.block], state))
            else:
                given[self._blocks[point.block]] = with_hidden(passed.outputs[point.block], state)
            undo.enter_context(giving_back(given))
            return run(self._backbone, passed.batch)

    def _run(self, batch: Batch, within: Within = lambda _show: nullcontext()) -> Recorded:
        passed = Recorded(batch)
        with (
            watching(self._blocks, self._halves, passed.states.__setitem__, passed.outputs.__setitem__),
            within(passed.states.__setitem__),
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
            reason = self._why_not(passed, index)
            if not reason and index in self._halves:
                reason = self._why_not(passed, index, inside=True)
            if reason:
                raise ModelError(
                    f"block {index} of {self._name} {reason}; the effect of one block on the predictions cannot be "
                    "told apart there"
                )

    def _why_not(self, passed: Recorded, index: int, *, inside: bool = False) -> str:
        """Tell why a block cannot be run without the blocks before it, or from its middle; empty if it can."""
        try:
            with ExitStack() as undo:
                if inside:
                    middle = passed.states[Point(index, "middle")]
                    undo.enter_context(running_from(self._blocks[index], self._halves[index], middle))
                alone = self.alone(passed, index)
        except Exception as error:  # a block may fail in any way if something that it reads is missing
            return f"reads more than the residual stream: it fails without the other blocks ({one_line(error)})"
        pairs = [(passed.outputs[index], alone.outputs[index]), (passed.output, alone.output)]
        if any(deviation(hidden_states(first), hidden_states(second)) > TOLERANCE for first, second in pairs):
            where = " and its own attention" if inside else ""
            return f"reads more than the residual stream: it computes something else without the other blocks{where}"
        return ""
