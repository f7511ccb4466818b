"""One pass through the backbone and back."""

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
from layerimp.sweep.base import Drive, Scouting, Sweep, Work
from layerimp.sweep.gradients import BackwardRecorder, owners_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

TOKENS_AT_ONCE = {"cpu": 256}
"""By the type of the device, how many tokens go through the model and back at once, where a batch has more; elsewhere
`DEVICE_TOKENS`. A CPU is no faster with more, and what autograd keeps of them is what the pass needs in memory."""
DEVICE_TOKENS = 4096


@dataclass(frozen=True)
class Backward(Sweep):
    """One pass through the backbone and back: the gradient of a target with respect to the hidden states.

    The target is a sum over everything that the model predicts on the set: each next token, or each label. It is never
    divided by their number, of which `Trace.targets` tells, so that the batch size changes no score.

    Parameters are frozen and gradients begin at the first block's input, which makes this two forward passes' work and
    not three. The head is apart: the gradient comes back from it a few tokens at a time, and goes on from the last
    hidden state. A large batch goes through in parts, a few rows at a time, each with traces of its own. What exists at
    once is what autograd keeps of one part, and never the logits of one.

    Sites: `block_in`, `block_out` and the gradients with respect to them, `block_in_grad` and `block_out_grad`, all
    [batch, seq, hidden]. Traces come from the last block to the first, each as soon as the gradient reaches the block's
    input.

    A plugin changes how gradients are computed by a subclass that overrides `rules`; its fields tell one set of rules
    from another.

    Attributes:
        target: What is summed: the negative log-likelihood, or the logit before any scale or cap.
        parameters: Whether traces hold the gradients of the block's parameters with two dimensions or more as well.
    """

    SITES: ClassVar[frozenset[str]] = frozenset({"block_in", "block_out", "block_in_grad", "block_out_grad"})
    predicts: ClassVar[bool] = True

    target: Quantity = "nll"
    parameters: bool = False

    def union(self, other: Sweep) -> Sweep | None:
        """The pass with the gradients of parameters, if one of two that are otherwise equal asks for them."""
        if not isinstance(other, Backward) or replace(other, parameters=self.parameters) != self:
            return None
        return self if self.parameters else other

    def work(self, num_units: int) -> Work:
        """The way there, and the way back, which is another pass, or two with the gradients of parameters."""
        return Work(2 + self.parameters, 2)

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Nothing is looked for inside the blocks; see `Sweep.scout`.

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
        """The context of the whole pass, to be overridden: it may change how gradients are computed, and undoes it.

        Yields:
            A dictionary that is empty when a batch begins. What it holds when a trace is emitted is in `Trace.extras`.
        """
        yield {}

    def drive(self, stack: BlockStack, batches: Iterable[Batch], drive: Drive) -> None:
        """Run every batch through the model and back; see `Sweep.drive`. No block is given back from the cache.

        Raises:
            ModelError: the model predicts nothing, or no gradient reaches one of its blocks.
            CalibrationError: nothing in the whole set is to be predicted.
            NonFiniteError: a block or the target is a NaN or an infinity, or a gradient is.
        """
        head = Head(stack)
        targets_seen = 0
        with ExitStack() as undo, torch.inference_mode(False), torch.enable_grad():
            undo.enter_context(bypassed(stack, drive.removed, idle=drive.cache is not None and drive.cache.apart))
            recorder = BackwardRecorder(stack, drive)
            owners = owners_of(stack, drive) if self.parameters else {}
            undo.enter_context(_frozen_but(stack.model, owners))
            recorder.extras = undo.enter_context(self.rules(stack))
            recorder.begin_at_the_first_unit(stack, undo)
            recorder.attach(stack, drive.middles, undo)
            recorder.take_gradients(owners, undo)
            for number, batch in enumerate(batches):
                for part in _parts(batch):
                    recorder.begin(number, part["attention_mask"].bool())
                    self._there_and_back(head, part, recorder)
                    targets_seen += len(recorder.targets)
                drive.end_batch()
        if not targets_seen:
            raise CalibrationError("the calibration set holds nothing to predict: every row is a single token")

    def _there_and_back(self, head: Head, batch: Batch, recorder: BackwardRecorder) -> None:
        output = run(head.backbone, batch)
        recorder.check_outputs(f"in batch {recorder.number}")
        with torch.no_grad():
            targets = head.targets(batch, output)
        recorder.targets, slope = head.gradient(output, targets, self.target)
        if not recorder.targets.isfinite().all():
            raise NonFiniteError(f"what the model predicts is a NaN or an infinity in batch {recorder.number}")
        torch.autograd.backward([output[name] for name in slope], list(slope.values()))
        recorder.check_gradients()


def _parts(batch: Batch) -> Iterator[Batch]:
    """The batch, a few rows at a time."""
    ids = batch["input_ids"]
    rows = max(1, TOKENS_AT_ONCE.get(ids.device.type, DEVICE_TOKENS) // ids.shape[1])
    for start in range(0, len(ids), rows):
        yield {name: value[start : start + rows] for name, value in batch.items()}


@contextmanager
def _frozen_but(model: nn.Module, wanted: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let the `wanted` parameters and no others take gradients; flags and gradients are as before in the end."""
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
