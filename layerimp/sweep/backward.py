"""The gradient sweep: one pass through the backbone and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import run
from layerimp.blocks.head import Head, Quantity
from layerimp.blocks.stack import Batch
from layerimp.errors import CalibrationError, ModelError, NonFiniteError
from layerimp.sweep.base import Drive, Scouting, Sweep
from layerimp.sweep.gradients import BackwardRecorder, owners_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

TOKENS_AT_ONCE = {"cpu": 256}
"""How many tokens of a larger batch go through the model and back at once, by type of device; `DEVICE_TOKENS` for types
that are not listed. A CPU is no faster with more, and what autograd keeps for these tokens is most of the memory that
the pass needs."""
DEVICE_TOKENS = 4096


@dataclass(frozen=True)
class Backward(Sweep):
    """One pass through the backbone and back: the gradient of a target with respect to the hidden states.

    A scorer that estimates, to first order, how much the loss rises per target without a block:

        sweep = Backward("nll")
        observes = frozenset({"block_in", "block_out", "block_out_grad"})

        def update(self, trace):
            change = trace.rows("block_in") - trace.rows("block_out")
            rise = (change * trace.rows("block_out_grad")).sum(dtype=torch.float64)
            self.rise.add_total(trace.block, rise, len(trace.targets))

    The target is a sum over everything that the model predicts on the set: each next token, or each label.
    `Trace.targets` holds the terms of a batch. The sum is never divided by their number, so that the batch size changes
    no score.

    Parameters are frozen and gradients begin at the first block's input, so that the pass costs as much as two forward
    passes rather than three. The head is separate: it returns the gradient of a few tokens at a time, which goes on
    from the last hidden state. A large batch goes through in parts of a few rows, each with traces of its own. In
    memory at one time is what autograd keeps for one part, and never all logits of a part.

    Sites: `block_in`, `block_out` and the gradients with respect to them, `block_in_grad` and `block_out_grad`, all
    [batch, seq, hidden]. Traces come from the last block to the first, each as soon as the gradient reaches the block's
    input.

    Extras: `real` [batch, seq], which tokens are no padding, if the trace's mask leaves out others as well. A sum over
    all tokens, such as a directional derivative, needs them.

    To change how gradients are computed, a plugin overrides `rules` in a subclass. Passes with different rules have to
    differ in a field of the subclass.

    Attributes:
        target: The quantity to sum: the negative log-likelihood, or the logit before any scale or cap.
        parameters: Whether traces also hold the gradients of those parameters that have two dimensions or more.
    """

    SITES: ClassVar[frozenset[str]] = frozenset({"block_in", "block_out", "block_in_grad", "block_out_grad"})
    predicts: ClassVar[bool] = True

    target: Quantity = "nll"
    parameters: bool = False

    def union(self, other: Sweep) -> Sweep | None:
        """Return the sweep that also takes the gradients of parameters, if the two differ in nothing else."""
        if not isinstance(other, Backward) or replace(other, parameters=self.parameters) != self:
            return None
        return self if self.parameters else other

    def passes(self, blocks: int, rows: int) -> float:
        """One pass forward, and one pass back, or two with the gradients of parameters."""
        return 2 + self.parameters

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Refuse gradient checkpointing; nothing inside the blocks is examined. See `Sweep.scout`.

        Raises:
            ModelError: gradient checkpointing is on, which would run the blocks once more on the way back.
        """
        if any(getattr(module, "gradient_checkpointing", False) for module in stack.model.modules()):
            raise ModelError(
                f"gradient checkpointing is on in this {type(stack.model).__name__}, and it hides what the blocks do; "
                "turn it off before scoring"
            )
        return super().scout(stack, sites)

    @contextmanager
    def rules(self, stack: BlockStack) -> Iterator[dict[str, Tensor]]:
        """Enter the context of the whole pass. Override it to change how gradients are computed; undo that at the end.

        Yields:
            A dictionary that is empty when a batch begins. When a trace is emitted, its contents go to `Trace.extras`.
        """
        yield {}

    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the model and back; see `Sweep.drive`. Every block runs: the cache is not used.

        Raises:
            ModelError: the model predicts nothing, or no gradient reaches one of its blocks.
            CalibrationError: the whole set holds nothing to predict.
            NonFiniteError: a block's output, the target or a gradient holds a NaN or an infinity.
        """
        head = Head(stack)
        batches = head.labelled(batches) if drive.removed else batches
        targets_seen = 0
        with ExitStack() as undo, torch.inference_mode(False), torch.enable_grad():
            undo.enter_context(bypassed(stack, drive.removed, idle=drive.apart))
            recorder = BackwardRecorder(stack, drive)
            owners = owners_of(stack, drive) if self.parameters else {}
            undo.enter_context(_frozen_but(stack.model, owners))
            extras = undo.enter_context(self.rules(stack))
            undo.enter_context(recorder.watching())
            undo.enter_context(recorder.taking_gradients(owners))
            for number, batch in enumerate(batches):
                for part in _parts(batch):
                    recorder.begin(number, part["attention_mask"].bool())
                    extras.clear()
                    recorder.batch.extras = extras
                    targets_seen += self._there_and_back(head, part, recorder)
                drive.end_batch()
        if not targets_seen:
            raise CalibrationError("the calibration set holds nothing to predict: every row is a single token")

    def _there_and_back(self, head: Head, batch: Batch, recorder: BackwardRecorder) -> int:
        """Run a batch through the model and back, and return how many targets it has."""
        output = run(head.backbone, batch)
        recorder.check()
        with torch.no_grad():
            targets = head.targets(batch, output)
        values, slope = head.gradient(output, targets, self.target)
        if not values.isfinite().all():
            raise NonFiniteError(f"what the model predicts is a NaN or an infinity in batch {recorder.batch.number}")
        recorder.batch.targets = values
        torch.autograd.backward([output[name] for name in slope], list(slope.values()))
        recorder.batch.check_gradients()
        return len(values)


def _parts(batch: Batch) -> Iterator[Batch]:
    """Divide a batch into parts of a few rows."""
    ids = batch["input_ids"]
    rows = max(1, TOKENS_AT_ONCE.get(ids.device.type, DEVICE_TOKENS) // ids.shape[1])
    for start in range(0, len(ids), rows):
        yield {name: value[start : start + rows] for name, value in batch.items()}


@contextmanager
def _frozen_but(model: nn.Module, wanted: Iterable[nn.Parameter]) -> Iterator[None]:
    """Freeze all parameters but the `wanted` ones; at the end, restore the flags and gradients of all."""
    chosen = set(wanted)
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _, _ in before:
            if parameter.requires_grad != (parameter in chosen):
                parameter.requires_grad_(parameter in chosen)
            if parameter in chosen:
                parameter.grad = None
        yield
    finally:
        for parameter, flag, gradient in before:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
