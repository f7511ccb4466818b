"""The time that one block of a model takes, measured with random weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.forward import block_input, called, computing, with_hidden, without_cache
from layerimp.blocks.modes import quiet
from layerimp.pipeline.outline import alike, stand_in

if TYPE_CHECKING:
    from torch import nn

    from layerimp.pipeline.outline import Outline

REPEATS = 3
"""How often a block is timed, after one run to warm up; the median counts."""


def block_seconds(outline: Outline, rows: int, tokens: int) -> float | None:
    """Return the mean time of a block for one batch [rows, tokens] on the CPU, in float32.

    One block of each kind is timed.

    Returns:
        The seconds; None if there is not enough memory, or if the model cannot be built or run with random weights.
    """
    try:
        with quiet():
            stack = stand_in(outline.stack)
            if stack is None:
                return None
            kinds, timed, shown = alike(stack), dict[int, float](), dict[int, Any]()

            def step(index: int, _block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                kind = kinds[index]
                if kind not in timed:
                    timed[kind], shown[kind] = _timed(partial(forward, *args, **kwargs))
                return with_hidden(shown[kind], block_input(args, kwargs))

            ids = torch.ones((rows, tokens), dtype=torch.long)
            with ExitStack() as undo, torch.no_grad():
                for index, block in enumerate(stack):
                    undo.enter_context(computing(block, partial(step, index, block, block.forward)))
                part = stack.model if stack.model.config.is_encoder_decoder else stack.backbone
                called(part, input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(part))
    except Exception:  # a model may fail in any way with weights that were never trained
        return None
    return statistics.mean(timed[kind] for kind in kinds)


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median time of a call in seconds, and the result of the call."""
    seconds, output = [], run()
    for _ in range(REPEATS):
        start = time.perf_counter()
        output = run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), output
