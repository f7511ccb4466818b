"""The evaluator `footprint`: the size and the speed of a model."""

from __future__ import annotations

import inspect
import math
import statistics
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
    """Parameters, bytes of the weights and of the cache, and the latency and throughput of one forward.

    The forward runs the whole model, including the head, on one batch of arbitrary tokens. The timed forwards run
    without a cache. Of an offloaded model only the sizes are measured.
    """

    name = "footprint"
    kind = "cost"
    needs_weights = False

    class Config(Options):
        """The options of `footprint`: the size of the batch, and the number of forwards."""

        sequences: int = Field(1, ge=1, description="The number of sequences in the batch.")
        seq_length: int = Field(
            128, ge=1, description="The number of tokens per sequence; fewer if the model supports fewer."
        )
        repeats: int = Field(5, ge=1, description="The number of timed forwards; the result is their median.")
        warmup: int = Field(2, ge=0, description="The number of untimed forwards before the timed ones.")

    config: Config

    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Measure `model`; the tokenizer is not used.

        Returns:
            `parameters` (tied weights count once), `bytes` (of the parameters as stored), `kv_bytes_per_token` (of the
            cache that generation keeps, such as keys and values, in the dtype of the stored weights; omitted for models
            without a cache, and where it is not known by layer), `latency_ms` (the median of one forward) and
            `tokens_per_second`. A model on the meta device has no times.

        Raises:
            ModelError: the model does not take token ids.
        """
        from layerimp.blocks.timing import error_of_median
        from layerimp.models import cached_bytes, longest_row, stored_bytes

        batch, length = self.config.sequences, min(self.config.seq_length, longest_row(model) or self.config.seq_length)
        tokens = _tokens(model, batch, length)
        kept = sum(cached_bytes(model, tokens))

        def metric(name: str, value: float, stderr: float | None = None, *, better: bool = False) -> Metric:
            return Metric("footprint", name, float(value), stderr, better)

        sizes = [
            metric("parameters", sum(parameter.numel() for parameter in model.parameters())),
            metric("bytes", stored_bytes(model)),
            *([] if not kept or math.isnan(kept) else [metric("kv_bytes_per_token", kept / tokens.numel())]),
        ]
        if model.device.type == "meta":
            return sizes
        seconds = self._time(model, tokens)
        latency, error = statistics.median(seconds), error_of_median(seconds) if len(seconds) > 1 else None
        speed = tokens.numel() / latency
        return [
            *sizes,
            metric("latency_ms", 1000 * latency, None if error is None else 1000 * error),
            metric("tokens_per_second", speed, None if error is None else speed * error / latency, better=True),
        ]

    def _time(self, model: PreTrainedModel, tokens: torch.Tensor) -> list[float]:
        """Return the seconds of each timed forward of `tokens` [batch, seq]."""
        import torch

        from layerimp.blocks import in_eval_mode
        from layerimp.blocks.timing import seconds_of

        uncached = "use_cache" in inspect.signature(model.forward).parameters
        options = {"use_cache": False} if uncached else {}
        warmup, repeats = self.config.warmup, self.config.repeats
        seconds = []
        with (
            self.progress.stage("measure the footprint", warmup + repeats, unit="runs") as advance,
            in_eval_mode(model),
            torch.inference_mode(),
        ):
            for _ in range(warmup + repeats):
                seconds.append(seconds_of(lambda: model(input_ids=tokens, **options), tokens.device))
                advance(1)
        return seconds[warmup:]


def _tokens(model: PreTrainedModel, batch: int, length: int) -> torch.Tensor:
    """Return token ids [batch, seq], the same in every run."""
    import torch

    embeddings: Any = model.get_input_embeddings()
    if not hasattr(embeddings, "num_embeddings"):
        raise ModelError(f"{type(model).__name__} takes no token ids")
    ids = torch.arange(batch * length, device=model.device) * 7919  # a prime, so that neighbouring ids differ
    return (ids % int(embeddings.num_embeddings)).reshape(batch, length)


@hookimpl
def layerimp_evaluators() -> list[type[Evaluator]]:
    """Return this plugin's evaluator."""
    return [Footprint]
