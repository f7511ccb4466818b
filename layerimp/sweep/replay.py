"""Runs a model again from one of its blocks on: the blocks before it return their stored outputs.

Embeddings, masks and position tables are still made by the model itself, whatever its architecture. What has to hold
is that a block reads the residual stream and nothing else of the blocks before it. This is not so if blocks share keys
and values; such a model is refused, since no model without one of these blocks would give the same result.

A run may also begin inside a block, between its attention and its MLP; that this is exact is proved in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.equivalence import TOLERANCE, deviation
from layerimp.blocks.forward import block_input, giving_back, hidden_states, run, with_hidden
from layerimp.blocks.middle import watching_middle
from layerimp.blocks.restart import Restart
from layerimp.blocks.stack import probe_ids
from layerimp.errors import ModelError, one_line
from layerimp.stats import working_dtype
from layerimp.sweep.finite import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from layerimp.blocks.middle import Halves
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.sweep.units import Point, Unit

TRIAL_TOKENS = 8

Show = Callable[[int, "Tensor"], None]
"""Takes a block's index and its middle [batch, seq, hidden]."""
Within = Callable[[Show], AbstractContextManager[None]]
"""Makes the context of a run, in which the middles of blocks that are not computed are shown."""


@dataclass
class Recorded:
    """What a backbone and its blocks did in one batch.

    Attributes:
        batch: The batch.
        inputs: The input of each block [batch, seq, hidden], by index.
        middles: The hidden states between a block's attention and its MLP [batch, seq, hidden], if asked for, by index.
        outputs: The output of each block, in the block's own form.
        output: The output of the backbone.
    """

    batch: Batch
    inputs: dict[int, Tensor] = field(default_factory=dict)
    middles: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    output: Any = None

    def state(self, point: Point) -> Tensor:
        """The residual stream [batch, seq, hidden] at a point."""
        if point.side == "output":
            return hidden_states(self.outputs[point.block])
        return (self.inputs if point.side == "input" else self.middles)[point.block]

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
        self._backbone, self._indices, self._name = backbone, indices, type(stack.model).__name__
        self._blocks = {index: stack[index] for index in indices}
        self._halves = halves
        self._restarts = {index: Restart(stack[index], own) for index, own in halves.items()}
        self._prove(stack)

    def record(self, batch: Batch, when: str, within: Within | None = None) -> Recorded:
        """Run a batch through the intact model.

        Args:
            batch: The batch.
            when: The time of the run, for errors, such as `in batch 0`.
            within: The context of the run. It may return stored outputs of blocks, and then shows their middles.

        Raises:
            NonFiniteError: a block puts out a NaN or an infinity; the error names the block.
        """
        return self._checked(self._run(batch, within), when)

    def resume(self, passed: Recorded, point: Point, state: Tensor) -> Any:
        """Return the backbone's output if the residual stream at a middle or an end is `state` [batch, seq, hidden]."""
        given = {self._blocks[before]: passed.outputs[before] for before in self._indices if before < point.block}
        with ExitStack() as undo:
            if point.side == "middle":
                undo.enter_context(self._restarts[point.block].at(state))
            else:
                given[self._blocks[point.block]] = with_hidden(passed.outputs[point.block], state)
            undo.enter_context(giving_back(given))
            return run(self._backbone, passed.batch)

    def _run(self, batch: Batch, within: Within | None = None) -> Recorded:
        passed = Recorded(batch)

        def record(index: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            # A block's input may still lie on the device of the previous block.
            passed.inputs[index] = block_input(args, kwargs).to(hidden_states(output).device)
            passed.outputs[index] = output

        with ExitStack() as hooks:
            for index, block in self._blocks.items():
                if index in self._halves:
                    show = partial(passed.middles.__setitem__, index)
                    hooks.enter_context(watching_middle(block, self._halves[index], show))
                hooks.callback(block.register_forward_hook(partial(record, index), with_kwargs=True).remove)
            if within is not None:
                hooks.enter_context(within(passed.middles.__setitem__))
            passed.output = run(self._backbone, batch)
        if idle := sorted(set(self._indices) - passed.outputs.keys()):
            raise ModelError(f"block {idle[0]} of {self._name} does not run on text alone")
        return passed

    def _checked(self, passed: Recorded, when: str) -> Recorded:
        """Return what was recorded, after checking that its shapes and values can be used."""
        for index, read in passed.inputs.items():
            if read.shape[:-1] != passed.batch["input_ids"].shape:
                shape = f"{list(read.shape)}, and not [batch, seq, hidden]"
                raise ModelError(f"block {index} of {self._name} reads hidden states {shape}")
        watch = Watch(self._indices)
        watch.watch(passed.batch["attention_mask"].bool())
        for output in passed.outputs.values():
            watch.put_out(output)
        watch.check_outputs(when)
        return passed

    def _prove(self, stack: BlockStack) -> None:
        """Run each block on a few tokens and some padding, with all other blocks returning their stored outputs."""
        ids = probe_ids(stack, 2 * TRIAL_TOKENS).view(2, TRIAL_TOKENS)
        mask = torch.ones_like(ids)
        mask[1, TRIAL_TOKENS // 2 :] = 0
        with ExitStack() as learning:
            for restart in self._restarts.values():
                learning.enter_context(restart.learning())
            passed = self._run({"input_ids": ids, "attention_mask": mask})
        self._checked(passed, "in the trial before batch 0")
        # Anything that a model keeps beside the residual stream now comes from other tokens; going from the last block
        # to the first, every block meets that foreign state.
        self._run({"input_ids": ids.flip(0, 1), "attention_mask": mask})
        for index in reversed(self._indices):
            reason = self._why_not(passed, index)
            if not reason and index in self._restarts and self._why_not(passed, index, self._restarts[index]):
                self._restarts[index].forget()
                reason = self._why_not(passed, index, self._restarts[index])
            if reason:
                raise ModelError(
                    f"block {index} of {self._name} {reason}; the effect of one block on the predictions cannot be "
                    "told apart there"
                )

    def _why_not(self, passed: Recorded, index: int, restart: Restart | None = None) -> str:
        """Tell why a block cannot be run without the blocks before it, or from its middle; empty if it can."""
        others = {self._blocks[other]: output for other, output in passed.outputs.items() if other != index}
        try:
            with ExitStack() as undo:
                if restart is not None:
                    undo.enter_context(restart.at(passed.middles[index]))
                undo.enter_context(giving_back(others))
                alone = self._run(passed.batch)
        except Exception as error:  # a block may fail in any way if something that it reads is missing
            return f"reads more than the residual stream: it fails without the other blocks ({one_line(error)})"
        pairs = [(passed.outputs[index], alone.outputs[index])]
        pairs.append((passed.output, alone.output))
        if any(deviation(hidden_states(first), hidden_states(second)) > TOLERANCE for first, second in pairs):
            where = " and its own attention" if restart else ""
            return f"reads more than the residual stream: it computes something else without the other blocks{where}"
        return ""
