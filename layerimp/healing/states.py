"""The states of both models at a gap, batch by batch: the residual stream as it is, and as it should become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, hidden_states, run
from layerimp.blocks.modes import in_eval_mode
from layerimp.blocks.stream import Place
from layerimp.errors import LayerimpError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.healer import Case, Gap, Writer


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
        ours = _taken(case, case.pruned, here, batch, gap.writer)
        theirs = _taken(case, case.intact, there, batch)
        inside = (ours.get(name) for name in ("read", "written", "normed"))
        yield State(ours["stream"], theirs["stream"].to(ours["stream"].device), *inside)


class _AtTheGapError(LayerimpError):
    """Ends a run at the gap: what comes after the gap is not needed."""


def _taken(
    case: Case, stack: BlockStack, place: Place, batch: Batch, writer: Writer | None = None
) -> dict[str, Tensor]:
    """Run a model up to a place, and return the rows of real tokens of the stream there, and of what a writer reads.

    Raises:
        ModelError: the model does not run up to the place on text alone.
    """
    mask = batch["attention_mask"].bool()
    taken: dict[str, Tensor] = {}

    def take(name: str, value: Tensor) -> None:
        # Some modules get all tokens of a batch in a single row.
        rows = value.detach().reshape(*mask.shape, value.shape[-1])
        taken[name] = rows[mask.to(rows.device)]

    def enter(name: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        take(name, block_input(args, kwargs))

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        take("written", hidden_states(output))

    def stop(value: Tensor) -> None:
        take("stream", value)
        raise _AtTheGapError

    with ExitStack() as hooks:
        if writer is not None:
            linear = stack.model.get_submodule(writer.path)
            hooks.enter_context(linear.register_forward_pre_hook(partial(enter, "read"), with_kwargs=True))
            hooks.enter_context(linear.register_forward_hook(leave))
            if writer.norm is not None:
                norm = stack.model.get_submodule(writer.norm)
                hooks.enter_context(norm.register_forward_pre_hook(partial(enter, "normed"), with_kwargs=True))
        with in_eval_mode(stack.model), torch.no_grad(), suppress(_AtTheGapError):
            with place.watching(stop), case.rerun(stack, batch):
                run(stack.backbone, batch)
            raise ModelError(f"{type(stack.model).__name__} does not run up to the gap on text alone")
    return taken
