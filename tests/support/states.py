"""The residual stream of a model, read by plain hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import layerimp
from layerimp.blocks.forward import block_input, hidden_states


@contextmanager
def states(model: Any) -> Iterator[dict[tuple[str, int], torch.Tensor]]:
    """The input and output of each block in autograd's graph, by end and index."""
    stream: dict[tuple[str, int], torch.Tensor] = {}
    hooks = []
    for index, block in enumerate(layerimp.find_blocks(model)):

        def enter(_m: Any, args: Any, kwargs: Any, index: int = index) -> None:
            stream["block_in", index] = block_input(args, kwargs)

        def leave(_m: Any, _a: Any, out: Any, index: int = index) -> None:
            stream["block_out", index] = hidden_states(out)

        hooks += [block.register_forward_pre_hook(enter, with_kwargs=True), block.register_forward_hook(leave)]
    try:
        yield stream
    finally:
        for hook in hooks:
            hook.remove()
