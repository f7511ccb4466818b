"""The states of both models at a gap, batch by batch: the residual stream as it is, and as it should become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, hidden_states, run, with_hidden
from layerimp.blocks.head import Head
from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import LayerimpError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.healer import Case, Gap, Writer


@dataclass(frozen=True)
class State:
    """The states of both models at a gap in one batch.

    All tensors hold the real tokens in order, without padding. At the end of the stack they hold only the tokens that
    the head reads, such as the first one of each row.

    Attributes:
        stream: The residual stream of the pruned model at the gap [token, hidden].
        target: The residual stream of the intact model after the removed blocks [token, hidden].
        read: The input of the last linear map before the gap [token, feature]; None if the gap has no writer.
        written: The output of that map [token, hidden]; None if the gap has no writer.
        normed: The input of the norm between the map and the gap [token, hidden]; None if there is no norm.
    """

    stream: Tensor
    target: Tensor
    read: Tensor | None
    written: Tensor | None
    normed: Tensor | None

    def at(self, tokens: Tensor) -> State:
        """Return the states of some tokens, given as a mask [token]."""
        held = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: value[tokens.to(value.device)] for name, value in held.items()})


def states(case: Case, gap: Gap, batches: Iterable[Batch]) -> Iterator[State]:
    """Yield the states of both models at a gap, batch by batch.

    The models run in their current state, so that repairs at earlier gaps have their effect. Neither model runs further
    than the gap.
    """
    ours = _Reader(case.pruned, [gap.position], [gap.writer])
    theirs = _Reader(case.intact, [gap.end], [])
    tokens_read = _TokensRead(case.intact, [gap])
    for batch in batches:
        own, intact = (reader.read(batch, case.rerun(reader.stack, batch)) for reader in (ours, theirs))
        stream = own.streams[gap.position]
        state = own.state(gap.position, intact.streams[gap.end].to(stream.device), gap.writer)
        yield from tokens_read.of([state], batch)


def intact_states(stack: BlockStack, gaps: Sequence[Gap], batches: Iterable[Batch]) -> Iterator[list[State]]:
    """Yield the states at gaps if nothing was changed before each of them, batch by batch: one state for each gap.

    Stream and target are those of the intact model before and after the gap, which it runs once to the last gap's end.

    Args:
        stack: The blocks of the intact model.
        gaps: The gaps, by the positions and writers of the intact model; see `Writers.gaps`.
        batches: The text.
    """
    places = {place for gap in gaps for place in (gap.position, gap.end)}
    reader = _Reader(stack, sorted(places), [gap.writer for gap in gaps])
    tokens_read = _TokensRead(stack, gaps)
    for batch in batches:
        taken = reader.read(batch, nullcontext())
        at_gaps = [taken.state(gap.position, taken.streams[gap.end], gap.writer) for gap in gaps]
        yield tokens_read.of(at_gaps, batch)


class _TokensRead:
    """Keeps only the tokens that something reads after the gap.

    Where a block follows the gap, its attention reads all tokens. Elsewhere only the head reads, and the head of a
    classifier often reads one token of a row. A fit to the other tokens as well would repair that one badly.

    Args:
        stack: The blocks of the intact model.
        gaps: The gaps.
    """

    def __init__(self, stack: BlockStack, gaps: Sequence[Gap]) -> None:
        self._stack, self._at_end = stack, [gap.end == len(stack) for gap in gaps]
        self._head = Head(stack) if any(self._at_end) else None

    def of(self, states: Sequence[State], batch: Batch) -> list[State]:
        """Return the states at these tokens, of one state for each gap in a batch."""
        if self._head is None or self._head.kind == "next-token":  # a language model predicts from every token
            return list(states)
        tokens = self._read_by(self._head, batch)
        return [state.at(tokens) if end else state for state, end in zip(states, self._at_end, strict=True)]

    def _read_by(self, head: Head, batch: Batch) -> Tensor:
        """Return on which real tokens of the last block's output the predictions depend [token]."""
        leaves: list[Tensor] = []

        def cut(_module: nn.Module, _args: Any, output: Any) -> Any:
            leaves.append(hidden_states(output).detach().requires_grad_())
            return with_hidden(output, leaves[0])

        model = self._stack.model
        with self._stack[-1].register_forward_hook(cut), in_eval_mode(model), torch.enable_grad():
            logits = head.label_logits(run(head.backbone, batch), batch)
            (slopes,) = torch.autograd.grad(logits.square().sum(), leaves)
        return slopes.ne(0).any(dim=-1)[batch["attention_mask"].bool().to(slopes.device)]


class _AtTheGapError(LayerimpError):
    """Ends a run at the last place: what comes after it is not needed."""


@dataclass(frozen=True)
class _Taken:
    """What was read of a model in one batch, as rows of real tokens.

    Attributes:
        streams: The residual stream before blocks [token, hidden]; at the end of the stack under the number of blocks.
        inside: For each writer's path and each name of a field of `State`, the value there.
    """

    streams: dict[int, Tensor] = field(default_factory=dict)
    inside: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def state(self, position: int, target: Tensor, writer: Writer | None) -> State:
        """Return the state at a gap, all of it on the device of the writer."""
        path, stream = "" if writer is None else writer.path, self.streams[position]
        read, written, normed = (self.inside.get((path, name)) for name in ("read", "written", "normed"))
        home = stream.device if read is None else read.device
        return State(
            *(stream.to(home), target.to(home)),
            *(value if value is None else value.to(home) for value in (read, written, normed)),
        )


class _Reader:
    """Reads the residual stream of a model at some places, and what writers read and write.

    Args:
        stack: The model's blocks.
        places: The blocks before which the stream is read, and the number of blocks for the end of the stack; the model
            does not run beyond the last of them.
        writers: The writers; None is left out.
    """

    def __init__(self, stack: BlockStack, places: Sequence[int], writers: Iterable[Writer | None]) -> None:
        self.stack = stack
        self._places = places
        self._writers = {writer.path: writer for writer in writers if writer is not None}

    def read(self, batch: Batch, within: AbstractContextManager[None]) -> _Taken:
        """Run the model on a batch, in a context.

        Raises:
            ModelError: the model does not run up to the last place on text alone.
        """
        mask = batch["attention_mask"].bool()
        taken = _Taken()

        def rows(value: Tensor) -> Tensor:
            # Some modules get all tokens of a batch in a single row.
            value = value.detach().reshape(*mask.shape, value.shape[-1])
            return value[mask.to(value.device)]

        def enter(path: str, name: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            taken.inside[path, name] = rows(block_input(args, kwargs))

        def leave(path: str, _module: nn.Module, _args: Any, output: Any) -> None:
            taken.inside[path, "written"] = rows(hidden_states(output))

        def see(place: int, value: Tensor) -> None:
            taken.streams[place] = rows(value)
            if len(taken.streams) == len(self._places):
                raise _AtTheGapError

        def before(place: int, _block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            see(place, block_input(args, kwargs))

        def at_end(_block: nn.Module, _args: Any, output: Any) -> None:
            see(len(self.stack), hidden_states(output))

        model = self.stack.model
        with ExitStack() as hooks:
            for path, writer in self._writers.items():
                linear = model.get_submodule(path)
                hooks.enter_context(linear.register_forward_pre_hook(partial(enter, path, "read"), with_kwargs=True))
                hooks.enter_context(linear.register_forward_hook(partial(leave, path)))
                if writer.norm is not None:
                    norm, reading = model.get_submodule(writer.norm), partial(enter, path, "normed")
                    hooks.enter_context(norm.register_forward_pre_hook(reading, with_kwargs=True))
            for place in self._places:
                if place == len(self.stack):
                    hooks.enter_context(self.stack[-1].register_forward_hook(at_end))
                else:
                    block, reading = self.stack[place], partial(before, place)
                    hooks.enter_context(block.register_forward_pre_hook(reading, with_kwargs=True))
            with in_eval_mode(model), torch.no_grad(), suppress(_AtTheGapError):
                with within:
                    run(self.stack.backbone, batch)
                raise ModelError(f"{type(model).__name__} does not run up to the gap on text alone")
        return taken
