"""An evaluator of quality that keeps its contracts, and for each contract an evaluator that breaks it."""

from __future__ import annotations

from typing import Any

import torch

from layerimp import Evaluator, Likelihood, Metric


class Parameters(Evaluator):
    """Counts the parameters."""

    name = "parameters"
    needs_weights = False

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "parameters", sum(p.numel() for p in model.parameters()), higher_is_better=False)]


class Empty(Parameters):
    """Measures nothing."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return []


class Numbers(Parameters):
    """Gives bare numbers."""

    def evaluate(self, model: Any, tokenizer: Any) -> Any:
        return [metric.value for metric in super().evaluate(model, tokenizer)]


class NotANumber(Parameters):
    """Gives NaN."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "parameters", float("nan"))]


class Twice(Parameters):
    """Gives everything twice."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return super().evaluate(model, tokenizer) * 2


class Training(Parameters):
    """Leaves the model in training mode."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        model.train()
        return super().evaluate(model, tokenizer)


class Rounding(Parameters):
    """Rounds the weights."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
        return super().evaluate(model, tokenizer)


class OtherDocuments(Parameters):
    """Gives documents' values whose mean differs from the value."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "acc", 0.5, documents=(1.0, 1.0, 0.0))]


class OtherUnits(Parameters):
    """Gives a likelihood in a different unit from the metric."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "ppl", 2.0, None, False, likelihood=Likelihood((-1.0, -2.0), (4.0, 4.0)))]


class Ragged(Parameters):
    """Gives fewer units than documents."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "ppl", 2.0, None, False, likelihood=Likelihood((-1.0, -2.0), (4.0,)))]


class PerBlock(Parameters):
    """Has a metric for each block."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric(f"block {index}", "size", 1.0) for index, _ in enumerate(model.model.layers)]


class Guessing(Parameters):
    """Draws its value at random."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "luck", float(torch.rand(1, generator=torch.Generator().manual_seed(id(self) % 999))))]


class Unprintable(Parameters):
    """Has a fingerprint that is not text."""

    def fingerprint(self) -> Any:
        return object()


class Tokenizing(Parameters):
    """Needs a tokenizer."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        len(tokenizer)
        return super().evaluate(model, tokenizer)


class Looking(Parameters):
    """Reads values of weights, and says that it does not."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "norm", float(next(model.parameters()).detach().norm()))]


class Shapeless(Parameters):
    """Measures something else if there are no weights."""

    def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
        return [Metric("model", "bytes", 1.0 + (model.device.type == "meta"))]


WRONG_EVALUATORS: list[tuple[type[Evaluator], str, str]] = [
    (Empty, "metrics are sound", "no metrics"),
    (Numbers, "metrics are sound", "gives no list of Metric"),
    (NotANumber, "metrics are sound", "parameters of model is NaN"),
    (Twice, "metrics are sound", "measures parameters of model a second time"),
    (Training, "the model stays as it is", "the mode of"),
    (Rounding, "the model stays as it is", "the value of"),
    (OtherDocuments, "metrics are sound", "acc of model is 0.5, its documents' mean 0.66"),
    (OtherUnits, "metrics are sound", "ppl of model is 2.0, its likelihood says 1.45"),
    (Ragged, "metrics are sound", "the arrays of ppl of model have .2, 1, 2. documents"),
    (PerBlock, "pruned models are measured", "of a pruned model"),
    (Guessing, "quality is repeatable", "after"),
    (Unprintable, "the fingerprint is stable", "not text"),
    (Tokenizing, "a missing tokenizer is handled", "TypeError"),
    (Looking, "weights do not matter if none are needed", "meta"),
    (Shapeless, "weights do not matter if none are needed", "value=2.0.* without weights"),
]
