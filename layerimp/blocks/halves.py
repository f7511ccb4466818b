"""Finds the two halves of a block: its attention and its MLP, and the hidden states between them.

Nothing is known by name. The *middle* of a block is the residual value that its last addition, the MLP's, adds to: in
pre-norm the block's input plus what the attention put out, in post-norm the norm of that. Whatever is called from the
first submodule on that reads the middle belongs to the MLP half, and all before it to the attention half. A parameter
of which that does not tell, because no submodule that is called holds it, belongs to the MLP half if another value of
it leaves the middle as it is, and not what the block puts out.

That the middle can be replaced is tried: with other hidden states in its place, these are what the MLP half reads and
adds to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, computing, hidden_states, with_hidden
from layerimp.blocks.sites import Branches, Tap
from layerimp.blocks.trial import Record, Trial, examined, first_float
from layerimp.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

_PARALLEL = "they are parallel branches"

Change = Callable[["Tensor", "Tensor"], "Tensor"]
"""Makes other hidden states of a block's input and its middle, all [batch, seq, hidden]."""


@dataclass(frozen=True)
class Halves:
    """The two halves of a block. Paths are relative to the block.

    Attributes:
        mlp: The largest submodules, and the single parameters and buffers beside them, that belong to the MLP half. All
            else belongs to the attention half, or holds parts of both.
        reader: The first submodule of the MLP half, which reads the middle.
        giver: The submodule that puts out the middle; None where the block itself adds what the attention puts out.
        branches: What the attention half adds to the residual stream; mostly one addition, and two where there is
            cross-attention.
    """

    mlp: frozenset[str]
    reader: str
    giver: str | None
    branches: tuple[Tap, ...]


@dataclass(frozen=True)
class Whole:
    """A block that has no halves.

    Attributes:
        reason: Why, such as `its attention and its MLP are parallel branches`.
    """

    reason: str


def find_halves(stack: BlockStack) -> list[Halves | Whole]:
    """The halves of every block of `stack`; or why a block has none.

    Raises:
        NonFiniteError: a block puts out a NaN or an infinity, so that nothing can be told.
    """
    nothing = Whole("it does not add to the residual stream first an attention and then an MLP")
    found: list[Halves | Whole | None] = examined(stack, _halves)
    return [one or nothing for one in found]


def halves_of(stack: BlockStack, blocks: Collection[int]) -> dict[int, Halves]:
    """The halves of some blocks, by their indices.

    Raises:
        ModelError: one of them has none; says why.
        NonFiniteError: a block puts out a NaN or an infinity, so that nothing can be told.
    """
    if not blocks:
        return {}
    known = find_halves(stack)
    found = {}
    for index in sorted(blocks):
        halves = known[index]
        if isinstance(halves, Whole):
            raise ModelError(
                f"block {index} of {type(stack.model).__name__} cannot be divided into attention and MLP: "
                f"{halves.reason}"
            )
        found[index] = halves
    return found


@contextmanager
def watching_middle(block: nn.Module, halves: Halves, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Show the middle of a block [batch, seq, hidden] each time that it runs."""
    with _reading(block, halves, see):
        yield


@contextmanager
def changing_middle(block: nn.Module, halves: Halves, change: Change) -> Iterator[None]:
    """Let the MLP half of a block go on from other hidden states than the attention half has left.

    What an addition makes of them is rounded; exactly the block's input is what the MLP half reads where `change` gives
    that back and the attention half makes one addition.
    """
    begun: list[Tensor] = []
    forward = block.forward

    def begin(*args: Any, **kwargs: Any) -> Any:
        begun[:] = [block_input(args, kwargs)]
        return forward(*args, **kwargs)

    with ExitStack() as undo:
        undo.enter_context(computing(block, begin))
        if halves.giver is not None:

            def give(_module: nn.Module, _args: Any, output: Any) -> Any:
                middle = hidden_states(output)
                start = begun[0].to(middle.device)
                return with_hidden(output, change(start, middle.view_as(start)).view_as(middle))

            undo.enter_context(block.get_submodule(halves.giver).register_forward_hook(give))
        else:
            undo.enter_context(_adding(block, halves.branches, begun, change))
        yield


@contextmanager
def _adding(block: nn.Module, branches: tuple[Tap, ...], begun: list[Tensor], change: Change) -> Iterator[None]:
    """Let the last of the attention half's additions lead to what `change` makes."""
    with ExitStack() as undo:
        for tap in branches:

            def add(_module: nn.Module, _args: Any, output: Any, tap: Tap = tap) -> Any:
                added = hidden_states(output)
                start = begun[0].to(added.device)
                stream = begun[-1].to(added.device)
                middle = (
                    stream + tap.scale * added.view_as(stream) if tap.scale != 1 else stream + added.view_as(stream)
                )
                if tap is not branches[-1]:
                    begun.append(middle)
                    return output
                other = (change(start, middle) - stream) / tap.scale
                return with_hidden(output, other.to(added.dtype).view_as(added))

            undo.enter_context(block.get_submodule(tap.path).register_forward_hook(add))
        yield


@contextmanager
def _reading(block: nn.Module, halves: Halves, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Show what the reader of a block's middle reads, in the form of the block's input."""
    begun: list[torch.Size] = []
    forward = block.forward

    def begin(*args: Any, **kwargs: Any) -> Any:
        begun[:] = [block_input(args, kwargs).shape]
        return forward(*args, **kwargs)

    def read(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        middle = first_float((*args, *kwargs.values()))
        if begun and middle is not None:
            see(middle.view(begun.pop()))

    with ExitStack() as undo:
        undo.enter_context(computing(block, begin))
        undo.enter_context(block.get_submodule(halves.reader).register_forward_pre_hook(read, with_kwargs=True))
        yield


def _halves(trial: Trial, record: Record) -> Halves | Whole | None:
    """The halves of a block, or why it has none; None where it shows no additions."""
    branches = Branches(record.events)
    if not branches.additions:
        return Whole(_PARALLEL) if branches.parallel() else None
    *attention, last = branches.additions
    middle = last.residual
    if not attention or torch.equal(middle, record.events[0].rows):
        return Whole(_PARALLEL) if attention else None
    shows = [(at, event) for at, event in enumerate(record.events) if torch.equal(event.rows, middle)]
    reads = [at for at, event in shows if event.side == "input"]
    if not reads:
        return Whole("no module reads the hidden states between the two")
    sides = _Sides(trial, reads[0])
    sides.part(trial.block, "", record)
    if sides.shared:
        return Whole(f"{sides.shared} is used in both")
    givers = [event.path for at, event in shows if event.side == "output" and at < reads[0]]
    for giver in (*givers[-1:], None):
        halves = Halves(frozenset(sides.mlp), record.events[reads[0]].path, giver, tuple(one.tap for one in attention))
        if _divides(trial, halves, middle):
            return halves
    return Whole("the MLP reads more than what the attention leaves in the residual stream")


def _divides(trial: Trial, halves: Halves, middle: Tensor) -> bool:
    """Whether other hidden states in the middle of a block are all that decides what it puts out."""
    size = middle.abs().mean() + 1
    other = size * torch.sin(torch.arange(middle.numel(), device=middle.device)).view_as(middle).to(middle.dtype)
    with changing_middle(trial.block, halves, lambda start, _middle: other.view_as(start).to(start)):
        one, further = trial.run(), trial.run(nudged=True)
    read = next(event.rows for event in one.events if event.path == halves.reader and event.side == "input")
    ends = [hidden_states(record.output) for record in (one, further)]
    pairs = [(other.to(read), read), (ends[0], ends[1])]
    rounding = 1e3 * torch.finfo(read.dtype).eps
    return all(bool(((a - b).abs() <= rounding * a.abs().max()).all()) for a, b in pairs)


class _Sides:
    """Parts the submodules of a block between its halves.

    Args:
        trial: The block.
        at: The number of the event at which the MLP half begins.

    Attributes:
        mlp: What belongs to the MLP half, by path.
        shared: A submodule with parameters that is called in both halves; empty where there is none.
    """

    def __init__(self, trial: Trial, at: int) -> None:
        self._trial, self._at = trial, at
        self._plain: Record | None = None
        self.mlp: list[str] = []
        self.shared = ""

    def part(self, module: nn.Module, path: str, record: Record) -> None:
        """Part a submodule between the halves, as it was called."""
        calls = [at for one in module.modules() for at in record.calls.get(one, [])]
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

    def _after_the_middle(self, names: list[str]) -> bool:
        """Whether another value of tensors changes what the block puts out, and not its middle."""
        self._plain = self._plain or self._trial.run()
        changed = self._trial.run(changed=names)
        middles, ends = ([record.events[at].rows for record in (self._plain, changed)] for at in (self._at, -1))
        return torch.equal(*middles) and not torch.equal(*ends)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
