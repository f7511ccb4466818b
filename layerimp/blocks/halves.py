"""Finds the two halves of a block: its attention and its MLP, and the hidden states between them.

Nothing is known by name. The *middle* of a block is the residual value that its last addition, the MLP's, adds to: in
pre-norm blocks the block's input plus the output of the attention, in post-norm blocks the norm of that. The first
submodule that reads the middle, and everything called after it, belongs to the MLP half; everything called before
belongs to the attention half. A parameter that is in no called submodule belongs to the MLP half if another value of it
changes the block's output, but not the middle.

A trial verifies that the middle can be replaced: the MLP half must read and add to the hidden states put in its place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import torch

from layerimp.blocks.middle import Halves, Whole, changing_middle, in_mlp
from layerimp.blocks.sites import Addition, Branches, Tap
from layerimp.blocks.trial import Trial, TrialRecord, examined
from layerimp.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

_PARALLEL = "the two are parallel branches"
_NO_ORDER = "it does not add to the residual stream an attention first and then an MLP"


def find_halves(stack: BlockStack) -> list[Halves | Whole]:
    """Find the halves of every block of `stack`, or why a block cannot be divided.

    Raises:
        NonFiniteError: a block puts out a NaN or an infinity, so that nothing can be found out.
    """
    examine = partial(_halves, crossing=bool(stack.model.config.is_encoder_decoder))
    return [halves or Whole(_NO_ORDER) for halves in examined(stack, examine)]


def halves_of(stack: BlockStack, blocks: Collection[int]) -> dict[int, Halves]:
    """Find the halves of some blocks, by their indices.

    Raises:
        ModelError: one of the blocks cannot be divided; the error says why.
        NonFiniteError: a block puts out a NaN or an infinity, so that nothing can be found out.
    """
    if not blocks:
        return {}
    known = find_halves(stack)
    divided = {}
    for index in sorted(blocks):
        halves = known[index]
        if isinstance(halves, Whole):
            raise ModelError(
                f"block {index} of {type(stack.model).__name__} cannot be divided into attention and MLP: "
                f"{halves.reason}"
            )
        divided[index] = halves
    return divided


def _halves(trial: Trial, record: TrialRecord, *, crossing: bool) -> Halves | Whole | None:
    """Find the halves of a block, or why it cannot be divided; None if it shows no additions.

    Of several places between its additions, the middle is the first place after which no token reads another token,
    since several additions may follow the attention. With `crossing` it is the last place, because a cross-attention
    reads another text.
    """
    candidates: list[Halves] = []
    reasons: list[str] = []
    for middle, attention, added_to in _middles(record):
        halves = _halves_around(trial, record, middle, tuple(addition.tap for addition in attention))
        if isinstance(halves, Halves):
            if added_to or _carries(trial, halves, middle):
                candidates.append(halves)
        else:
            reasons.append(halves.reason)
    if not candidates:
        parallel = [] if reasons else Branches(record.events).parallel()
        if parallel and all(bool(addition.event.rows.any()) for addition in parallel):
            return Whole(_PARALLEL)
        return Whole(reasons[0]) if reasons else None
    if crossing or len(candidates) == 1:
        return candidates[-1]
    return next((halves for halves in candidates if not _attends(trial, halves)), candidates[-1])


def _middles(record: TrialRecord) -> Iterator[tuple[Tensor, list[Addition], bool]]:
    """Yield what may be the middle of a block [token, feature], in order.

    Each comes with the additions that lead to it, and with whether a later addition to it was seen.
    """
    additions = Branches(record.events).additions
    for count in range(1, len(additions)):
        yield additions[count].residual, additions[:count], True
    if len(additions) == 1 and additions[0].target is not record.events[-1]:  # the MLP may add several outputs at once
        yield additions[0].target.rows, additions, False


def _halves_around(trial: Trial, record: TrialRecord, middle: Tensor, branches: tuple[Tap, ...]) -> Halves | Whole:
    """Find the halves of a block around a middle [token, feature], or why this is not a middle."""
    if torch.equal(middle, record.events[0].rows):
        return Whole(_PARALLEL)
    shows = [(at, event) for at, event in enumerate(record.events) if torch.equal(event.rows, middle)]
    reads = [at for at, event in shows if event.side == "input"]
    if not reads:
        return Whole("no module reads the hidden states between the two")
    sides = _Sides(trial, reads[0])
    sides.part(trial.block, "", record)
    if sides.shared:
        return Whole(f"{sides.shared} is used in both")
    if not sides.both_have_matrices():
        return Whole(_NO_ORDER)
    givers = [event.path for at, event in shows if event.side == "output" and at < reads[0]]
    for giver in (*givers[-1:], None):
        halves = Halves(frozenset(sides.mlp), record.events[reads[0]].path, giver, branches)
        if _divides(trial, halves, middle):
            return halves
    return Whole("its MLP reads more than what its attention leaves in the residual stream")


def _divides(trial: Trial, halves: Halves, middle: Tensor) -> bool:
    """Whether a block's output depends on nothing but the hidden states in its middle."""
    other = _made_up(middle)
    with _starting_from(trial, halves, other):
        record, nudged = trial.run(), trial.run(nudged=True)
    read = next(event.rows for event in record.events if event.path == halves.reader and event.side == "input")
    return _close(other, read) and _close(_end(record), _end(nudged))


def _attends(trial: Trial, halves: Halves) -> bool:
    """Whether a token's output depends on other tokens in the middle of a block."""
    ends = []
    first = _made_up(trial.run().events[0].rows)
    second = first.clone()
    second[0] *= 2
    for middle in (first, second):
        with _starting_from(trial, halves, middle):
            ends.append(_end(trial.run()))
    return not _close(*(end[1:] for end in ends))


def _carries(trial: Trial, halves: Halves, middle: Tensor) -> bool:
    """Whether a block's output contains its middle itself, not only a norm of it, which would cancel a factor of 2."""
    once = _made_up(middle)
    ends = []
    for start in (once, 2 * once):
        with _starting_from(trial, halves, start):
            ends.append(_end(trial.run()))
    return float((ends[1] - ends[0]).norm()) > 0.1 * float(once.norm())


def _starting_from(trial: Trial, halves: Halves, middle: Tensor) -> AbstractContextManager[None]:
    """A context in which the MLP half starts from given hidden states [token, feature], whatever the attention does."""
    return changing_middle(trial.block, halves, lambda start, _middle: middle.view_as(start).to(start))


def _made_up(rows: Tensor) -> Tensor:
    """Make up hidden states [token, feature] similar to the given ones."""
    wave = torch.sin(torch.arange(rows.numel(), device=rows.device)).view_as(rows)
    return (rows.abs().mean() + 1) * wave.to(rows.dtype)


def _end(record: TrialRecord) -> Tensor:
    """Return a block's output [token, feature]."""
    return record.events[-1].rows


def _close(expected: Tensor, actual: Tensor) -> bool:
    """Whether two tensors are equal up to rounding."""
    allowed = 1e3 * torch.finfo(actual.dtype).eps * expected.abs().max()
    return bool(((expected.to(actual.dtype) - actual).abs() <= allowed).all())


class _Sides:
    """Divides the submodules of a block between its halves.

    Args:
        trial: The block.
        at: The number of the event at which the MLP half begins.

    Attributes:
        mlp: The paths that belong to the MLP half.
        shared: A submodule with parameters that is called in both halves; empty if there is none.
    """

    def __init__(self, trial: Trial, at: int) -> None:
        self._trial, self._at = trial, at
        self._plain: TrialRecord | None = None
        self.mlp: list[str] = []
        self.shared = ""

    def part(self, module: nn.Module, path: str, record: TrialRecord) -> None:
        """Divide a submodule between the halves, according to its calls."""
        calls = [at for inner in module.modules() for at in record.calls.get(inner, [])]
        if not calls:
            names = [_joined(path, name) for name, _ in module.named_parameters()]
            if names and self._after_the_middle(names):
                self.mlp.append(path)
        elif min(calls) >= self._at:
            self.mlp.append(path)
        elif max(calls) >= self._at:
            own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
            at = record.calls.get(module, [])
            if own and at and min(at) < self._at <= max(at):
                self.shared = path
            self.mlp += [name for each in own if self._after_the_middle([name := _joined(path, each)])]
            for name, child in module.named_children():
                self.part(child, _joined(path, name), record)

    def both_have_matrices(self) -> bool:
        """Whether each half has a parameter with two dimensions or more, and so more than a norm."""
        matrices = [name for name, parameter in self._trial.block.named_parameters() if parameter.ndim > 1]
        inside = sum(in_mlp(name, self.mlp) for name in matrices)
        return 0 < inside < len(matrices)

    def _after_the_middle(self, names: list[str]) -> bool:
        """Whether other values of tensors change the block's output, but not its middle."""
        self._plain = self._plain or self._trial.run()
        changed = self._trial.run(changed=names)
        middles, ends = ([record.events[at].rows for record in (self._plain, changed)] for at in (self._at, -1))
        return torch.equal(*middles) and not torch.equal(*ends)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
