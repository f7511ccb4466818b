"""Estimates how long evaluations take, from what they read and from how long the blocks take for a batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from layerimp.blocks.forward import called, hidden_states, without_cache
from layerimp.blocks.modes import in_eval_mode
from layerimp.blocks.stack import probe_ids, whole_or_backbone
from layerimp.errors import ModelError
from layerimp.progress import span

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack
    from layerimp.evaluator import Evaluator, Reading

LONG = 30.0
"""An evaluation that takes at least so long, in seconds, is announced."""
QUICK = 3e10
"""Evaluations of fewer operations are quick on any machine, so that no batch is timed."""
AT_ONCE = 1024
"""Rows of fewer tokens are timed together, up to about this many tokens."""
WARM_UP = 8
"""The tokens of a pass that is not timed."""
BATCH = 8
"""The rows in a batch of an evaluator that has no option for it."""

Blocks = Callable[[int, int], float | None]
"""Gives the seconds that all blocks take for a batch [rows, tokens]; None if not known."""


def reading_seconds(reading: Reading, batch: int, blocks: Blocks, head: float) -> float | None:
    """Estimate how long a model takes for what an evaluation reads.

    Args:
        reading: What is read.
        batch: The most rows in a batch.
        blocks: The time of a batch.
        head: The time of the head as a share of that of the blocks, per token.

    Returns:
        The seconds; None if not known.
    """
    if not reading.rows:
        return 0.0
    length = max(1, round(reading.tokens / reading.rows))
    rows = min(batch, max(1, AT_ONCE // length))
    at_once, step = blocks(rows, length), blocks(batch, 1) if reading.generated else 0.0
    if at_once is None or step is None:
        return None
    read = (reading.tokens + head * reading.predicted) / (rows * length) * at_once
    return read + reading.generated / batch * step * (1 + head)


def head_share(stack: BlockStack) -> float:
    """Return the size of the head as a share of the size of all blocks."""
    head = stack.model.get_output_embeddings()
    of_head = sum(parameter.numel() for parameter in head.parameters()) if head is not None else 0
    return of_head / max(1, sum(parameter.numel() for block in stack for parameter in block.parameters()))


def batch_of(evaluator: Evaluator) -> int:
    """Return the most rows in a batch of an evaluator."""
    return int(getattr(evaluator.config, "batch_size", None) or BATCH)


def timed(stack: BlockStack) -> Blocks:
    """Return what times one pass of a loaded model's blocks over a batch."""
    part = whole_or_backbone(stack)

    def run(ids: torch.Tensor) -> float:
        start = time.perf_counter()
        output = called(part, input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(part))
        float(hidden_states(output).flatten()[0])  # a GPU has to be done
        return time.perf_counter() - start

    def blocks(rows: int, tokens: int) -> float | None:
        try:
            with in_eval_mode(stack.model), torch.no_grad():
                run(probe_ids(stack, min(tokens, WARM_UP)))
                return run(probe_ids(stack, tokens).expand(rows, -1).contiguous())
        except (ModelError, RuntimeError, MemoryError):  # such as too little memory for it
            return None

    return blocks


@dataclass(frozen=True)
class Announced:
    """The work of an evaluator in a run.

    Attributes:
        label: The evaluator's label.
        evaluator: The evaluator.
        reading: What the evaluator reads for a model.
        models: How many models it measures; the intact one counts in part if some of its metrics are known.
    """

    label: str
    evaluator: Evaluator
    reading: Reading
    models: float

    @property
    def tokens(self) -> float:
        """The tokens of all models."""
        return self.models * (self.reading.tokens + self.reading.generated)

    def seconds(self, blocks: Blocks, head: float) -> float | None:
        """Estimate the time; see `reading_seconds`."""
        each = reading_seconds(self.reading, batch_of(self.evaluator), blocks, head)
        return None if each is None else each * self.models

    def __str__(self) -> str:
        tasks, documents = len(getattr(self.evaluator.config, "tasks", ())), round(self.reading.documents)
        parts = [f"{tasks} task{'s' * (tasks > 1)}"] if tasks else []
        parts += [f"{documents:,} document{'s' * (documents > 1)}", f"some {_rounded(self.reading.tokens):,} tokens"]
        if self.reading.generated:
            parts.append(f"at most {_rounded(self.reading.generated):,} to generate")
        models = math.ceil(self.models)
        each = f" for each of {models} models" if models > 1 else ""
        return f"{self.label}: {', '.join(parts)}{each}"


def announcement(all_work: Sequence[Announced], stack: BlockStack, *, tried: bool = False) -> str | None:
    """Say about how long evaluations will take, after timing a batch; None if that is short, or not known.

    Args:
        all_work: The evaluators with what they read.
        stack: The blocks of the loaded model.
        tried: Whether a search measures the models, whose number is not known; the work is then that of one of them.
    """
    weights = sum(parameter.numel() for block in stack for parameter in block.parameters())
    if 2 * weights * sum(work.tokens for work in all_work) < QUICK:
        return None
    blocks, head = timed(stack), head_share(stack)
    seconds = [work.seconds(blocks, head) for work in all_work]
    known = [duration for duration in seconds if duration is not None]
    if len(known) < len(seconds) or sum(known) < LONG:
        return None
    line = f"{'; '.join(map(str, all_work))}: about {span(sum(known))}"
    line += " for each model that is tried" if tried else ""
    can_be_limited = any("limit" in work.evaluator.Config.model_fields for work in all_work)
    return f"{line}; --limit measures on fewer documents" if can_be_limited else line


def _rounded(number: float) -> int:
    """Round to two digits."""
    return int(round(number, 2 - len(str(int(number))))) if number >= 100 else round(number)
