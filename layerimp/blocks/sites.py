"""Finds where, inside a block, the attention and the MLP add to the residual stream.

Nothing is known by name. One trial on a few tokens records the input and output of every submodule of a block. An
output is an *addition* if the sum of a residual value and this output (times a constant, in models that scale their
branches) equals, element by element, a later submodule's input or the block's output. The first addition is that of the
attention (`attn_out`), the last one that of the MLP (`mlp_out`); `attn_act` and `mlp_act` are the inputs of the linear
maps whose outputs become these additions. If the branches are not parallel, `middle` is the residual value that the
last addition adds to. This works for sandwich norms, post-norm encoders, parallel branches and
modules that add the residual themselves, because only the numbers count. A block that computes differently has no such
sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import torch

from layerimp.blocks.trial import Event, TrialRecord, examined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack


@dataclass(frozen=True)
class Tap:
    """Where to read a site.

    Attributes:
        path: The path of the submodule in its block.
        side: Whether to read the submodule's input or its output.
        scale: The factor on the tensor before it is added to the residual stream.
        overwritten: Whether the block later changes the tensor in place, so that it has to be copied.
    """

    path: str
    side: Literal["input", "output"]
    scale: float = 1.0
    overwritten: bool = False


Taps = dict[str, Tap]
"""The taps of one block, by site."""


@dataclass(frozen=True)
class Addition:
    """A submodule's output that is added to the residual stream.

    Attributes:
        event: The output.
        scale: The factor on the output before it is added.
        residual: The value that it is added to [token, feature].
        target: The first place where the sum appears: a submodule's input, or the block's output.
    """

    event: Event
    scale: float
    residual: Tensor
    target: Event

    @property
    def tap(self) -> Tap:
        """Return the tap that reads this output."""
        return Tap(self.event.path, "output", self.scale, self.event.overwritten)


def find_taps(stack: BlockStack) -> list[Taps]:
    """Find the taps of every block of `stack`.

    One block of each structure is tried; see `examined`.

    Raises:
        NonFiniteError: a block puts out a NaN or an infinity, so that nothing can be found out.
    """
    return [taps or {} for taps in examined(stack, _taps)]


def _taps(record: TrialRecord) -> Taps | None:
    """Find the taps of a block; None if there are none."""
    branches = Branches(record.events)
    additions = branches.additions or branches.parallel()
    if len(additions) < 2:
        return None
    attention, mlp = additions[0], additions[-1]
    taps = {"attn_out": attention.tap, "mlp_out": mlp.tap}
    before = 0
    for site, addition in (("attn_act", attention), ("mlp_act", mlp)):
        until = branches.outputs.index(addition.event) + 1
        if last := _last_linear(branches.outputs[before:until], addition.event, branches.inputs):
            taps[site] = Tap(last.path, "input", 1.0, branches.inputs[last.path].overwritten)
        before = until
    reads_middle = (e for e in record.events if e.side == "input" and torch.equal(e.rows, mlp.residual))
    if branches.additions and (reader := next(reads_middle, None)):
        taps["middle"] = Tap(reader.path, "input", 1.0, reader.overwritten)
    return taps


class Branches:
    """What a block's branches add to the residual stream, according to the events in it.

    Args:
        events: The events, in order.

    Attributes:
        additions: The sequential additions, in order; empty if the branches are parallel.
        outputs: The outputs that may be additions.
        inputs: The last input of each submodule, by path.
    """

    def __init__(self, events: list[Event]) -> None:
        self._start, self._end = events[0], events[-1]
        self._residuals = [self._start.rows]
        self.outputs: list[Event] = []
        self.additions: list[Addition] = []
        self.inputs = {self._start.path: self._start}
        for event in events[1:]:
            if event.rows.shape[1] == self._start.rows.shape[1]:
                self._see(event)
            if event.side == "input":
                self.inputs[event.path] = event

    def _see(self, event: Event) -> None:
        if event.side == "input" or event is self._end:
            self._match(event)
        elif _is_norm(event.module) and any(torch.equal(self.inputs[event.path].rows, r) for r in self._residuals):
            self._residuals.append(event.rows)
        else:
            self.outputs.append(event)

    def _match(self, target: Event) -> None:
        """Record the addition that leads from a known residual value to the value of `target`, if there is one."""
        if any(torch.equal(target.rows, known) for known in self._residuals):
            return
        pairs = [(residual, output) for residual in reversed(self._residuals) for output in self.outputs]
        for scale_of in (_plain, _scaled):
            for residual, output in pairs:
                if scale := scale_of(target.rows, residual, output.rows):
                    self.additions.append(Addition(output, scale, residual, target))
                    self._residuals.append(target.rows)
                    return

    def parallel(self) -> list[Addition]:
        """Return the two outputs that together lead from the block's input to its output, if there are two."""
        end, start = self._end.rows, self._start.rows
        for first, second in combinations(self.outputs, 2):
            error = (end - start - first.rows - second.rows).abs()
            if _explains(error, end, start, first.rows, second.rows) and not torch.equal(first.rows, second.rows):
                return [Addition(branch, 1.0, start, self._end) for branch in (first, second)]
        return []


def _last_linear(outputs: list[Event], addition: Event, inputs: Mapping[str, Event]) -> Event | None:
    """Return the output of the linear map that becomes an addition, directly or through one module such as a norm."""
    for event in reversed(outputs):
        becomes_it = torch.equal(event.rows, addition.rows) or torch.equal(event.rows, inputs[addition.path].rows)
        if becomes_it and _is_linear(event.module):
            return event
    return None


def _plain(target: Tensor, residual: Tensor, output: Tensor) -> float:
    """Return 1 if residual + output == target, else 0."""
    return float(_explains((target - residual - output).abs(), target, residual, output))


def _scaled(target: Tensor, residual: Tensor, output: Tensor) -> float:
    """Return the constant c with residual + c x output == target, or 0 if there is none."""
    step, branch = (target - residual).double(), output.double()
    scale = float((step * branch).sum() / branch.square().sum().clamp_min(1e-300))
    return scale if _explains((step - scale * branch).abs(), target, residual, scale * output) else 0.0


def _explains(error: Tensor, target: Tensor, residual: Tensor, *branches: Tensor) -> bool:
    """Whether `error` is only rounding, while the branches are more than rounding."""
    rounding = 4 * torch.finfo(target.dtype).eps * (target.abs() + residual.abs() + sum(b.abs() for b in branches))
    if not (error <= rounding).all():
        return False
    visible = (target - residual).abs() > rounding
    return float(visible.double().mean()) > 0.5


def _is_norm(module: nn.Module) -> bool:
    return not any(True for _ in module.children()) and all(p.ndim < 2 for p in module.parameters())


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 2
