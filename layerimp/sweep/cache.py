"""Remembers what blocks put out, so that a pass in which only later blocks changed starts where they begin."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import giving_back, hidden_states
from layerimp.blocks.memory import free_bytes
from layerimp.errors import ModelError, NonFiniteError
from layerimp.steps import Step, Sublayer, removed_by
from layerimp.sweep.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from layerimp.blocks.stack import BlockStack

LIMIT = 1 << 30
"""Bytes that a cache takes at most; and no more than a quarter of what is free."""


class BlockCache:
    """What the blocks put out on one calibration set with some of them bypassed, as far as memory allows.

    A removal changes nothing before the removed block. What lies before it is given back in the next pass; the rest
    is computed, and remembered in its place. Nothing is remembered of a model whose blocks cannot be run apart.

    Args:
        stack: The model's blocks.
        limit: Bytes to take at most; None for `LIMIT`, or less where memory is short.

    Attributes:
        apart: Whether the blocks are proved to read nothing of one another but the hidden states.
    """

    def __init__(self, stack: BlockStack, limit: int | None = None) -> None:
        self._stack = stack
        self._room = min(LIMIT, _free(stack) // 4) if limit is None else limit
        self._known: dict[int, dict[int, Any]] = {}
        self._removed: frozenset[Sublayer] = frozenset()
        self._tried = False
        self.apart = False

    def begin(self, removed: Sequence[Step]) -> None:
        """Get ready for passes with the steps `removed` bypassed: forget all that this changes."""
        if self._room and not self._tried:
            self._tried = True
            with suppress(ModelError, NonFiniteError), torch.inference_mode():
                Replay(self._stack, self._stack.backbone, range(len(self._stack)))
                self.apart = True
        gone = removed_by(removed)
        first = min((block for block, _ in self._removed ^ gone), default=len(self._stack))
        self._removed = gone
        for outputs in self._known.values():
            for index in [index for index in outputs if index >= first]:
                self._room += hidden_states(outputs.pop(index)).nbytes

    @contextmanager
    def batch(self, number: int) -> Iterator[None]:
        """Run one batch, known by its `number`, through the backbone inside this: known blocks are not computed."""
        outputs = self._known.setdefault(number, {})
        with ExitStack() as undo:
            undo.enter_context(giving_back({self._stack[index]: output for index, output in outputs.items()}))
            for index, block in enumerate(self._stack):
                if index not in outputs and not {Sublayer(index, "attn"), Sublayer(index, "mlp")} <= self._removed:
                    undo.callback(block.register_forward_hook(partial(self._remember, outputs, index)).remove)
            yield

    def _remember(self, outputs: dict[int, Any], index: int, _block: nn.Module, _args: Any, output: Any) -> None:
        size = hidden_states(output).nbytes
        if self.apart and size <= self._room:
            outputs[index] = output
            self._room -= size


def _free(stack: BlockStack) -> int:
    """Bytes that are free on the fullest of the model's devices."""
    return min(free_bytes(device) for device in {parameter.device for parameter in stack.model.parameters()})


def remembered(cache: BlockCache | None, number: int) -> AbstractContextManager[None]:
    """`cache.batch`, or nothing where there is no cache."""
    return nullcontext() if cache is None else cache.batch(number)
