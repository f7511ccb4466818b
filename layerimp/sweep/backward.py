"""One pass through the backbone and back, and the recorder of what its blocks do and what that is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import block_input, run
from layerimp.blocks.head import Head, Quantity
from layerimp.blocks.stack import Batch
from layerimp.errors import CalibrationError, ModelError, NonFiniteError
from layerimp.sweep.base import Drive, Scouting, Sweep, Trace
from layerimp.sweep.finite import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        kept = drive.kept(stack)
        head = Head(stack)
        targets_seen = 0
        with ExitStack() as undo, torch.inference_mode(False), torch.enable_grad():
            undo.enter_context(bypassed(stack, drive.removed, idle=drive.cache is not None and drive.cache.apart))
            owners = _owners(stack, kept) if self.parameters else {}
            undo.enter_context(_frozen_but(stack.model, owners))
            extras = undo.enter_context(self.rules(stack))
            recorder = _Recorder(kept, drive, extras)
            recorder.attach(stack, owners, undo)
            for number, batch in enumerate(batches):
                for part in _parts(batch):
                    recorder.begin(number, part["attention_mask"].bool())
                    self._there_and_back(head, part, recorder)
                    targets_seen += len(recorder.targets)
                drive.end_batch()
        if not targets_seen:
            raise CalibrationError("the calibration set holds nothing to predict: every row is a single token")

    def _there_and_back(self, head: Head, batch: Batch, recorder: _Recorder) -> None:
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


Owners = dict["nn.Parameter", tuple[int, str]]
"""For each parameter, the position of its block and its name there."""


def _owners(stack: BlockStack, kept: Sequence[int]) -> Owners:
    """The parameters of the kept blocks with two dimensions or more; one that several blocks share is the first's."""
    owners: Owners = {}
    for position, index in enumerate(kept):
        for name, parameter in stack[index].named_parameters():
            if parameter.ndim >= 2 and parameter.is_floating_point():
                owners.setdefault(parameter, (position, name))
    return owners


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


class _Recorder(Watch):
    """Holds what the blocks did on the way there, and emits a block's trace as soon as its input's gradient is there.

    The sooner, the better: what the trace held is then free.
    """

    targets: Tensor

    def __init__(self, kept: Sequence[int], drive: Drive, extras: dict[str, Tensor]) -> None:
        super().__init__(kept)
        self.drive, self.sites, self.extras = drive, drive.sites, extras

    def begin(self, number: int, mask: Tensor) -> None:
        self.watch(mask)
        self.number = number
        self.acts: dict[int, dict[str, Tensor]] = {position: {} for position in range(len(self.blocks))}
        self.gradients: dict[int, dict[str, tuple[Tensor, Tensor]]] = {position: {} for position in self.acts}
        self.gradient_spreads: dict[int, Tensor] = {}
        self.extras.clear()

    def attach(self, stack: BlockStack, owners: Owners, undo: ExitStack) -> None:
        for position, block in enumerate(stack[index] for index in self.blocks):
            undo.callback(block.register_forward_pre_hook(partial(self._enter, position), with_kwargs=True).remove)
            undo.callback(block.register_forward_hook(partial(self._leave, position)).remove)
        for parameter, (position, name) in owners.items():
            hook = partial(self._take_gradient, position, name)
            undo.callback(parameter.register_post_accumulate_grad_hook(hook).remove)

    def _enter(self, position: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = block_input(args, kwargs)
        if position == 0:
            # Gradients begin here. Autograd serves leaves first, before parameters of this block: this is no leaf.
            leaf = hidden.detach().requires_grad_()
            first = leaf.view_as(leaf)
            args = tuple(first if value is hidden else value for value in args)
            kwargs = {name: first if value is hidden else value for name, value in kwargs.items()}
            hidden = first
        self._follow(position, "block_in", hidden)
        return args, kwargs

    def _leave(self, position: int, _block: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self._follow(position, "block_out", self.put_out(output))

    def _follow(self, position: int, site: str, hidden: Tensor) -> None:
        self.acts[position][site] = hidden.detach()
        if not hidden.requires_grad:
            end = "input" if site == "block_in" else "output"
            raise ModelError(f"no gradient flows back from the {end} of block {self.blocks[position]}")
        hidden.register_hook(partial(self._arrive, position, f"{site}_grad"))

    def _arrive(self, position: int, site: str, gradient: Tensor) -> None:
        self.acts[position][site] = gradient
        if site == "block_in_grad" and self.sites <= self.acts[position].keys():
            self.gradient_spreads[position] = self.spread(gradient)
            held, gradients = self.acts.pop(position), self.gradients.pop(position)
            before = range(max(0, position - self.drive.lookback), position)
            device = gradient.device  # what a block reads may lie on the device of the one before it
            self.drive.emit(
                Trace(
                    block=position,
                    batch=self.number,
                    acts={site: held[site].to(device) for site in self.sites},
                    mask=self.mask.to(device),
                    padded=self.padded,
                    inputs={at: self.acts[at]["block_in"].to(device) for at in before},
                    targets=self.targets,
                    extras=dict(self.extras),
                    gradients=gradients,
                )
            )

    def _take_gradient(self, position: int, name: str, parameter: nn.Parameter) -> None:
        """Take a parameter's gradient away. Autograd computes it before that of the block's input."""
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        if position not in self.gradients:
            raise ModelError(
                f"the gradient of {name} in block {self.blocks[position]} comes after that of the block's input"
            )
        self.gradients[position][name] = (parameter.detach(), gradient)

    def check_gradients(self) -> None:
        """Whether every block had its gradient, and a finite one."""
        if self.acts:
            raise ModelError(f"no gradient reaches block {self.blocks[max(self.acts)]}")
        finite = torch.stack([value.to(self.mask.device) for value in self.gradient_spreads.values()]).isfinite()
        for position, good in zip(self.gradient_spreads, finite.tolist(), strict=True):
            if not good:
                raise NonFiniteError(
                    f"the gradient at block {self.blocks[position]} is a NaN or an infinity in batch {self.number}"
                )
