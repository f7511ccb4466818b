"""The speed of several models side by side: how fast they read a prompt, and how fast they write.

The models take turns, in alternating order, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.modes import in_eval_mode, quiet
from layerimp.blocks.stack import probe_ids
from layerimp.blocks.timing import error_of_median, seconds_of
from layerimp.errors import LayerimpError
from layerimp.fidelity.generation import greedily
from layerimp.models.traits import longest_row
from layerimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack

READ, WRITTEN, BEFORE = 512, 64, 16
"""The tokens of the prompt that is read, the tokens that are written, and those that come before them."""
ROUNDS, FEWEST, SECONDS = 7, 3, 30.0
"""Each model is timed so often after an untimed round; less often, but at least so often, beyond so many seconds."""


@dataclass(frozen=True)
class Speed:
    """A speed.

    Attributes:
        tokens: The number of tokens in a timed run.
        seconds: The time of each timed run; the runs of several models with the same number came one after the other.
    """

    tokens: int
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Tokens per second, by the median time."""
        return self.tokens / statistics.median(self.seconds)

    @property
    def stderr(self) -> float:
        """The standard error of it."""
        return self.mean * error_of_median(self.seconds) / statistics.median(self.seconds)

    def times(self, other: Speed) -> tuple[float, float]:
        """Return how many times as fast this is as another speed, by the median ratio within a round, and the error.

        What slows a whole round cancels in its ratio.
        """
        ratios = [theirs / own for own, theirs in zip(self.seconds, other.seconds, strict=True)]
        return statistics.median(ratios), error_of_median(ratios)


def speeds(models: Mapping[str, BlockStack], progress: Progress = SILENT) -> dict[str, dict[str, Speed]]:
    """Measure how fast models read and write, with one sequence at a time.

    Args:
        models: The blocks of the models, by label.
        progress: Where to report progress.

    Returns:
        By label, the speed of `prefill` (a prompt of `READ` tokens, or as many as all models support) and of `decoding`
        (`WRITTEN` tokens, one after the other, with the cache). Without `decoding` if a model does not generate text,
        and without `prefill` if one does not run on token ids alone.
    """
    ways = {"prefill": _prefill, "decoding": _decoding}
    by_label: dict[str, dict[str, Speed]] = {label: {} for label in models}
    with progress.stage("measure the speed", (1 + ROUNDS) * len(ways), unit="rounds") as advance:
        for name, way in ways.items():
            length = min(READ, *(longest_row(stack.model) or READ for stack in models.values()))
            rounds: list[dict[str, tuple[int, float]]] = []
            start = time.perf_counter()
            try:
                while len(rounds) <= ROUNDS and (len(rounds) <= FEWEST or time.perf_counter() - start <= SECONDS):
                    order = list(models)[:: 1 if len(rounds) % 2 else -1]
                    rounds.append({label: way(models[label], length) for label in order})
                    advance(1)
            except (torch.OutOfMemoryError, LayerimpError):
                raise
            except Exception:  # stock code may refuse in any way; such a speed is not known
                continue
            for label, by_name in by_label.items():
                by_name[name] = Speed(rounds[-1][label][0], tuple(timed[label][1] for timed in rounds[1:]))
    return by_label


def _prefill(stack: BlockStack, length: int) -> tuple[int, float]:
    """Run a model on `length` tokens, as at the beginning of a generation: return the tokens, and the seconds."""
    model: Any = stack.model
    ids = probe_ids(stack, length)
    known = inspect.signature(model.forward).parameters
    options = {name: value for name, value in (("use_cache", True), ("logits_to_keep", 1)) if name in known}
    with torch.inference_mode(), in_eval_mode(model):
        return ids.shape[1], seconds_of(lambda: model(input_ids=ids, **options), stack.device)


class _Clock:
    """Receives tokens from `generate` as they are written, and notes when."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _tokens: torch.Tensor) -> None:
        """Note the time; `generate` hands over tokens on the CPU, so that an accelerator has finished with them."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to note."""


def _decoding(stack: BlockStack, length: int) -> tuple[int, float]:
    """Let a model write `WRITTEN` tokens, or as many as `length` leaves: return how many came after the first, and the
    seconds from that to the last."""
    model: Any = stack.model
    if not model.can_generate():
        raise TypeError(f"{type(model).__name__} does not generate text")
    ids = probe_ids(stack, BEFORE)
    clock = _Clock()
    new = min(WRITTEN, length - BEFORE)
    with greedily(model, (), new), torch.inference_mode(), in_eval_mode(model), quiet():
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), streamer=clock)
    _prompt, first, *_, last = clock.times
    return len(clock.times) - 2, last - first
