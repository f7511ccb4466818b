"""The evaluator `footprint`: how big a model is, and how fast."""

from __future__ import annotations

import inspect
import math
import statistics
import time
from typing import TYPE_CHECKING, Any

from pydantic import Field

from layerimp import hookimpl
from layerimp.component import Options
from layerimp.errors import ModelError
from layerimp.evaluator import Evaluator, Metric

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Footprint(Evaluator):
    """Parameters, bytes, those of the cache, and the latency and throughput of one forward.

    The forward is that of the whole model, head included, on one batch of arbitrary tokens. Timed it runs without a
    cache.
    """

    name = "footprint"
    kind = "cost"

    class Config(Options):
        """What to run, and how often."""

        sequences: int = Field(1, ge=1, description="Sequences in the batch.")
        seq_length: int = Field(128, ge=1, description="Tokens per sequence; less if the model takes less.")
        repeats: int = Field(5, ge=1, description="Timed forwards, of which the median counts.")
        warmup: int = Field(2, ge=0, description="Forwards before those.")

    config: Config

    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Measure `model`; the tokenizer is not needed.

        Returns:
            `parameters` (distinct ones, so tied weights count once), `bytes` (theirs, as they are stored),
            `kv_bytes_per_token` (of what generation keeps of the batch, such as keys and values, in the dtype that the
            weights are stored in; not for models that keep nothing), `latency_ms` (median of one forward) and
            `tokens_per_second`.

        Raises:
            ModelError: the model takes no token ids.
        """
        from layerimp.models import cached_bytes, longest_row, stored_bytes

        batch, length = self.config.sequences, min(self.config.seq_length, longest_row(model) or self.config.seq_length)
        tokens = _tokens(model, batch, length)
        kept = sum(cached_bytes(model, tokens))
        seconds = self._time(model, tokens)
        latency, error = statistics.median(seconds), _error_of_median(seconds)
        speed = batch * length / latency

        def metric(name: str, value: float, stderr: float | None = None, *, better: bool = False) -> Metric:
            return Metric("footprint", name, float(value), stderr, better)

        return [
            metric("parameters", sum(parameter.numel() for parameter in model.parameters())),
            metric("bytes", stored_bytes(model)),
            *([] if not kept else [metric("kv_bytes_per_token", kept / tokens.numel())]),
            metric("latency_ms", 1000 * latency, None if error is None else 1000 * error),
            metric("tokens_per_second", speed, None if error is None else speed * error / latency, better=True),
        ]

    def _time(self, model: PreTrainedModel, tokens: torch.Tensor) -> list[float]:
        """Seconds of each timed forward. `tokens`: [batch, seq]."""
        import torch

        from layerimp.blocks import in_eval_mode

        uncached = "use_cache" in inspect.signature(model.forward).parameters
        options = {"use_cache": False} if uncached else {}
        warmup, repeats = self.config.warmup, self.config.repeats
        seconds = []
        with (
            self.progress.stage("measure the footprint", warmup + repeats) as advance,
            in_eval_mode(model),
            torch.inference_mode(),
        ):
            for _ in range(warmup + repeats):
                _wait_for(tokens.device)
                start = time.perf_counter()
                model(input_ids=tokens, **options)
                _wait_for(tokens.device)
                seconds.append(time.perf_counter() - start)
                advance(1)
        return seconds[warmup:]


def _wait_for(device: torch.device) -> None:
    """Wait until an accelerator has done what it was asked, which a call to it does not."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _tokens(model: PreTrainedModel, batch: int, length: int) -> torch.Tensor:
    """Token ids, [batch, seq], the same in every run."""
    import torch

    embeddings: Any = model.get_input_embeddings()
    if not hasattr(embeddings, "num_embeddings"):
        raise ModelError(f"{type(model).__name__} takes no token ids")
    ids = torch.arange(batch * length, device=model.device) * 7919  # a prime, so that neighbours differ
    return (ids % int(embeddings.num_embeddings)).reshape(batch, length)


def _error_of_median(seconds: list[float]) -> float | None:
    """The standard error of the median of normal noise: sqrt(pi / 2) times that of the mean."""
    if len(seconds) < 2:
        return None
    return math.sqrt(math.pi / 2 / len(seconds)) * statistics.stdev(seconds)


@hookimpl
def layerimp_evaluators() -> list[type[Evaluator]]:
    """The evaluators of this plugin."""
    return [Footprint]
