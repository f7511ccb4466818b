"""Runs one block of each structure on a few tokens, and records the input and output of every submodule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch.func import functional_call
from torch.utils._pytree import tree_map, tree_map_only
from transformers import Cache

from layerimp.blocks.forward import block_input, called, computing, hidden_states, with_hidden, without_cache
from layerimp.blocks.modes import in_eval_mode
from layerimp.blocks.stack import TRIAL_TOKENS, probe_ids, whole_or_backbone
from layerimp.errors import LayerimpError, NonFiniteError
from layerimp.stats import working_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

    from layerimp.blocks.stack import BlockStack

Result = TypeVar("Result")
Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of a call of a block."""
Structure = tuple[tuple[object, ...], ...]


@dataclass(eq=False)
class Event:
    """An input or output of a submodule.

    Attributes:
        path: The path of the submodule in its block.
        module: The submodule.
        side: Whether the tensor is the input or the output.
        rows: A copy of the tensor [token, feature].
        borrowed: The tensor itself.
        version: The number of writes to the tensor at that time.
    """

    path: str
    module: nn.Module
    side: Literal["input", "output"]
    rows: Tensor
    borrowed: Tensor
    version: int

    @property
    def overwritten(self) -> bool:
        """Whether the block has changed the tensor since."""
        return self.borrowed._version != self.version


@dataclass
class TrialRecord:
    """The record of one run of a block.

    Attributes:
        events: The inputs and outputs of submodules, in order; the first is the block's input, the last its output.
        output: The output of the block.
    """

    events: list[Event] = field(default_factory=list)
    output: Any = None


class Trial:
    """A block and the arguments of one call, with which it can be run any number of times.

    A half-precision block is run in float32, so that small branches do not vanish in rounding.

    Args:
        block: The block.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.
    """

    def __init__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.block = block
        # A block's input may still lie on the device of the previous block.
        self._device = next(block.parameters()).device
        self._call: Call = (args, kwargs)
        self._tensors: dict[str, Tensor] | None = tree_map(
            _widened, dict(chain(block.named_parameters(), block.named_buffers()))
        )

    def run(self) -> TrialRecord:
        """Run the block, and record what happens in it."""
        call = self._copied()
        if self._tensors is not None:
            try:
                return self._record(tree_map_only(torch.Tensor, _widened, call), self._tensors)
            except RuntimeError:  # an attention kernel that supports only half precision
                self._tensors = None
        return self._record(call, {})

    def _copied(self) -> Call:
        """Copy the arguments, since a run may change them: a cache grows, and some blocks write into tensors."""

        def copied(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.to(self._device, copy=True)
            return copy.deepcopy(value) if isinstance(value, Cache) else value

        call: Call = tree_map(copied, self._call)
        return call

    def _record(self, call: Call, tensors: dict[str, Tensor]) -> TrialRecord:
        """Run the block with other `tensors` in place of its own, and record what happens in it."""
        record = TrialRecord()
        events = record.events

        def note(path: str, module: nn.Module, side: Literal["input", "output"], values: Iterable[Any]) -> None:
            value = first_float(values)
            if value is not None and value.numel() == TRIAL_TOKENS * value.shape[-1]:
                rows = value.detach().reshape(TRIAL_TOKENS, -1).clone()
                events.append(Event(path, module, side, rows, value, value._version))

        def enter(path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            note(path, module, "input", (*args, *kwargs.values()))

        def leave(path: str, module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            note(path, module, "output", output if isinstance(output, tuple | list) else (output,))

        with ExitStack() as hooks, torch.no_grad():
            for path, module in self.block.named_modules():
                hooks.enter_context(module.register_forward_pre_hook(partial(enter, path), with_kwargs=True))
                hooks.enter_context(module.register_forward_hook(partial(leave, path)))
            record.output = functional_call(self.block, tensors, *call)
        return record


def first_float(values: Iterable[Any]) -> Tensor | None:
    """Return the first floating-point tensor among values; None if there is none."""
    return next((v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()), None)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(working_dtype(tensor.dtype)) if tensor.is_floating_point() else tensor


def examined(stack: BlockStack, examine: Callable[[TrialRecord], Result | None]) -> list[Result | None]:
    """Examine the blocks of `stack`, and return the result for every block.

    One block of each structure is tried, and the pass ends when all structures are known. If nothing is found in a
    block, such as one whose branches put out only zeros, the next block of its structure is tried.

    Args:
        stack: The model's blocks.
        examine: Examines the record of a block; returns None if nothing is found.

    Raises:
        NonFiniteError: a block puts out a NaN or an infinity, so that nothing can be found out.
    """
    structures = {block: _structure(block) for block in stack}
    results: dict[Structure, Result] = {}
    # Usually a block reads nothing of earlier blocks but the hidden states, so that blocks run only in their trials.
    with in_eval_mode(stack.model):  # with dropout, no two runs are alike
        with suppress(LayerimpError):
            _pass(stack, structures, results, examine, passing=True)
        if results.keys() != set(structures.values()):
            _pass(stack, structures, results, examine, passing=False)
    return [results.get(structures[block]) for block in stack]


def _pass(
    stack: BlockStack,
    structures: Mapping[nn.Module, Structure],
    results: dict[Structure, Result],
    examine: Callable[[TrialRecord], Result | None],
    *,
    passing: bool,
) -> None:
    """Add the result for each structure to `results`, in one pass through the backbone that ends when all are known.

    With `passing`, the hidden states bypass the blocks.
    """
    shown: dict[Structure, Any] = {}
    indices = {block: index for index, block in enumerate(stack)}
    trying = False

    def step(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal trying
        structure = structures[block]
        if not trying and structure not in results:  # the trial runs the block itself
            trying, finite, new = True, True, None
            with stack.held(indices[block]):
                try:
                    record = Trial(block, args, kwargs).run()
                    finite = bool(hidden_states(record.output).isfinite().all())
                    shown[structure] = record.output
                    new = examine(record) if finite else None
                except Exception:  # whatever a block makes of running twice; then nothing is known of its inside
                    new = None
                finally:
                    trying = False
            if not finite:
                raise NonFiniteError(
                    f"block {indices[block]} puts out a NaN or an infinity in the trial before batch 0"
                )
            if new is not None:
                results[structure] = new
            if results.keys() == set(structures.values()):
                raise _AllKnownError
        if passing and not trying and structure in shown:
            return with_hidden(shown[structure], block_input(args, kwargs))
        with stack.held(indices[block]):
            return forward(*args, **kwargs)

    ids = probe_ids(stack)
    with ExitStack() as undo, torch.no_grad(), suppress(_AllKnownError):
        for block in structures:
            undo.enter_context(computing(block, partial(step, block, block.forward)))
        part = whole_or_backbone(stack)
        called(part, input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(part))


class _AllKnownError(LayerimpError):
    """Ends a trial early."""


def _structure(block: nn.Module) -> Structure:
    """Return what determines how a block computes: the classes of its modules, and their flags, kinds and factors."""
    return tuple(
        (path, type(module), *sorted((k, v) for k, v in vars(module).items() if isinstance(v, bool | float | str)))
        for path, module in block.named_modules()
    )
