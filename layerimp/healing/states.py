"""The states of both models at a gap, batch by batch: the residual stream as it is, and as it should become."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, hidden_states, run
from layerimp.blocks.modes import in_eval_mode
from layerimp.blocks.stream import Place
from layerimp.errors import LayerimpError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.healer import Case, Gap


@dataclass(frozen=True)
class State:
    """The states of both models at a gap in one batch. All tensors hold the real tokens in order, without padding.

    Attributes:
        stream: The residual stream of the pruned model at the gap [token, hidden].
        target: The residual stream of the intact model after the removed sublayers [token, hidden].
        read: The input of the last linear map before the gap [token, feature]; None if the gap has no writer.
        written: The output of that map [token, hidden]; None if the gap has no writer.
        normed: The input of the norm between the map and the gap [token, hidden]; None if there is no norm.
    """

    stream: Tensor
    target: Tensor
    read: Tensor | None
    written: Tensor | None
    normed: Tensor | None


def states(case: Case, gap: Gap, batches: Iterable[Batch]) -> Iterator[State]:
    """Yield the states of both models at a gap, batch by batch.

    The models run in their current state, so that repairs at earlier gaps have their effect. Neither model runs further
    than the gap.
    """
    here, there = Place(case.pruned, gap.position), Place(case.intact, gap.end)
    for batch in batches:
        mask = batch["attention_mask"].bool()
        ours, theirs = _Taken(mask), _Taken(mask)
        with ExitStack() as hooks:
            if gap.writer is not None:
                linear = case.pruned.model.get_submodule(gap.writer.path)
                hooks.enter_context(_hooked(linear, before=ours.taking("read"), after=ours.taking("written")))
                if gap.writer.norm is not None:
                    norm = case.pruned.model.get_submodule(gap.writer.norm)
                    hooks.enter_context(_hooked(norm, before=ours.taking("normed")))
            _stop_at(case, case.pruned, here, batch, ours)
        _stop_at(case, case.intact, there, batch, theirs)
        inside = (ours.get(name) for name in ("read", "written", "normed"))
        yield State(ours["stream"], theirs["stream"].to(ours["stream"].device), *inside)


class _Taken(dict[str, "Tensor"]):
    """Tensors by name, as rows of real tokens."""

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask

    def taking(self, name: str) -> Callable[[Any], None]:
        """Return a function that stores a module's input or output under a name."""

        def take(value: Tensor) -> None:
            # Some modules get all tokens of a batch in a single row.
            rows = value.detach().reshape(*self._mask.shape, value.shape[-1])
            self[name] = rows[self._mask.to(rows.device)]

        return take


class _AtTheGapError(LayerimpError):
    """Ends a run at the gap: what comes after the gap is not needed."""


def _stop_at(case: Case, stack: BlockStack, place: Place, batch: Batch, taken: _Taken) -> None:
    """Run a model up to a place, and store the residual stream there."""
    take = taken.taking("stream")

    def stop(value: Tensor) -> None:
        take(value)
        raise _AtTheGapError

    with in_eval_mode(stack.model), torch.no_grad(), suppress(_AtTheGapError):
        with place.watching(stop), case.rerun(stack, batch):
            run(stack.backbone, batch)
        raise ModelError(f"{type(stack.model).__name__} does not run up to the gap on text alone")


@contextmanager
def _hooked(
    module: nn.Module,
    *,
    before: Callable[[Tensor], None] | None = None,
    after: Callable[[Tensor], None] | None = None,
) -> Iterator[None]:
    """A context in which functions are called with a module's input and output."""
    with ExitStack() as undo:
        if before is not None:

            def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                before(block_input(args, kwargs))

            undo.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        if after is not None:
            undo.callback(module.register_forward_hook(lambda _m, _a, output: after(hidden_states(output))).remove)
        yield
