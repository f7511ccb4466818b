"""The divergence of a model's predictions from the intact model's, and how often both have the same top choice.

The logits of both models exist for a few tokens at a time. What is kept of the intact model is the input of its head,
so that it runs once, whatever the number of models that are compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from layerimp.blocks.batches import holds_images
from layerimp.blocks.forward import run
from layerimp.blocks.head import Head
from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import CalibrationError, NonFiniteError, PredictionError
from layerimp.metric import clustered_stderr
from layerimp.stats import chunks, working_dtype

if TYPE_CHECKING:
    from layerimp.blocks.head import Targets
    from layerimp.blocks.stack import Batch, BlockStack

CHUNK_LOGITS = 1 << 24
"""The number of logits of each model that exist at once: 64 MiB in float32."""


@dataclass(frozen=True)
class Compared:
    """Two models' predictions of the same tokens or labels.

    Attributes:
        divergences: The Kullback-Leibler divergence from the intact model's prediction, in nats [prediction], float64.
        intact: The intact model's most probable class [prediction]; of several, the one with the lowest number.
        own: The other model's [prediction].
    """

    divergences: Tensor
    intact: Tensor
    own: Tensor


def compared(intact: Tensor, logits: Tensor, classes: int | None = None) -> Compared:
    """Compare two predictions by their logits.

    The divergence is sum p (log p - log q) for the intact model's probabilities p. The logits are used in float32 or
    wider; sums are in float64. Equal logits have a divergence of exactly 0, and rounding makes none negative.

    Args:
        intact: The intact model's logits [prediction, class].
        logits: The other model's logits [prediction, class]; the number of classes may differ.
        classes: How many classes count, from the first on; by default as many as both have. A model's vocabulary may
            be padded beyond its tokenizer's.

    Raises:
        NonFiniteError: a divergence is a NaN or an infinity, since a logit is.
    """
    return Expected(intact, _classes(intact.shape[-1], logits.shape[-1], classes), logits.dtype).compared(logits)


def _classes(intact: int, own: int, classes: int | None) -> int:
    """Return how many classes count, of those that two models have."""
    return min(intact, own, *(() if classes is None else (classes,)))


class Expected:
    """The intact model's logits, ready to be compared with those of any number of models; see `compared`.

    Args:
        intact: The logits [prediction, class].
        count: How many classes count, from the first on.
        dtype: The dtype of the other models' logits.
    """

    def __init__(self, intact: Tensor, count: int, dtype: torch.dtype) -> None:
        self._count, self._dtype = count, torch.promote_types(working_dtype(intact.dtype), working_dtype(dtype))
        self._parts = []
        for rows in chunks(intact):
            scores, top = self._below_top(rows)
            weights = scores.exp()
            self._parts.append((scores, weights, weights.sum(dim=-1, dtype=torch.float64), top))

    def compared(self, logits: Tensor) -> Compared:
        """Compare logits [prediction, class] with the intact model's.

        Raises:
            NonFiniteError: a divergence is a NaN or an infinity, since a logit is.
        """
        if not self._parts:
            none = torch.zeros(0, dtype=torch.long, device=logits.device)
            return Compared(none.double(), none, none)
        divergences, tops = [], []
        rows = logits.split([len(top) for *_, top in self._parts])
        for (scores, weights, total, _), own_rows in zip(self._parts, rows, strict=True):
            own, own_top = self._below_top(own_rows.to(scores.device))
            difference = scores - own
            own_total = own.exp_().sum(dim=-1, dtype=torch.float64)
            mean = difference.mul_(weights).sum(dim=-1, dtype=torch.float64) / total
            if not mean.isfinite().all():  # an impossible class has an infinite logit, and does not count: 0 log 0 = 0
                mean = difference.masked_fill_(weights == 0, 0.0).sum(dim=-1, dtype=torch.float64) / total
            # log p - log q is the difference of the logits minus that of the normalisers, the same for all classes
            divergences.append((mean - (total.log() - own_total.log())).clamp_(min=0.0))
            tops.append(own_top)
        joined = Compared(torch.cat(divergences), torch.cat([top for *_, top in self._parts]), torch.cat(tops))
        if not joined.divergences.isfinite().all():
            raise NonFiniteError("the divergence is a NaN or an infinity")
        return joined

    def _below_top(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [row, class] minus the highest of their row, in the working dtype, and the class of that."""
        scores = logits[:, : self._count].to(self._dtype)
        top = scores.argmax(dim=-1)
        return scores - scores.gather(-1, top[:, None]), top


@dataclass
class Divergence:
    """Divergences and agreement over a text, as sums per row and the values of all predictions.

    Attributes:
        totals: The sum of the divergences in each row that predicts something, in nats [row].
        counts: The number of predictions in each of these rows [row].
        agreed: How many of them have the same top choice as the intact model's [row].
        intact_hits: How many of the intact model's top choices are the target [row].
        hits: How many of the model's top choices are the target [row].
        values: The divergences of all predictions in float32, in parts [prediction].
    """

    totals: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    agreed: list[int] = field(default_factory=list)
    intact_hits: list[int] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def add(self, predictions: Compared, targets: Targets) -> None:
        """Take in the predictions of a batch: one for each target, row by row."""
        counts = targets.mask.sum(dim=1).cpu()
        rows = torch.arange(len(counts)).repeat_interleave(counts)
        ids = targets.ids[targets.mask].cpu()
        divergences, intact, own = (
            each.cpu() for each in (predictions.divergences, predictions.intact, predictions.own)
        )

        def by_row(values: Tensor) -> list[float]:
            sums = torch.zeros(len(counts), dtype=torch.float64).index_add(0, rows, values.double())
            return [float(each) for each in sums[counts > 0]]

        self.totals += by_row(divergences)
        self.counts += counts[counts > 0].tolist()
        for sums, same in ((self.agreed, intact == own), (self.intact_hits, intact == ids), (self.hits, own == ids)):
            sums += map(int, by_row(same))
        self.values.append(divergences.float())

    def of_rows(self, chosen: Sequence[bool]) -> Divergence:
        """Return the divergences of some of the rows that predict something."""
        values = torch.cat(self.values).split(self.counts)
        counts, agreed, intact_hits, hits = (
            list(compress(sums, chosen)) for sums in (self.counts, self.agreed, self.intact_hits, self.hits)
        )
        totals = list(compress(self.totals, chosen))
        return Divergence(totals, counts, agreed, intact_hits, hits, list(compress(values, chosen)))

    @property
    def count(self) -> int:
        """The number of predictions."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean divergence per prediction, in nats."""
        return math.fsum(self.totals) / self.count

    @property
    def stderr(self) -> float | None:
        """The standard error of the mean, clustered by row; None for a single row."""
        return clustered_stderr(self.totals, self.counts)

    @property
    def agreement(self) -> float:
        """The share of predictions with the same top choice."""
        return sum(self.agreed) / self.count

    @property
    def agreement_stderr(self) -> float | None:
        """The standard error of the agreement, clustered by row; None for a single row."""
        return clustered_stderr(self.agreed, self.counts)

    @property
    def hits_stderr(self) -> float | None:
        """The standard error of the share of the model's top choices that are the target; None for a single row."""
        return clustered_stderr(self.hits, self.counts)

    def quantiles(self, *shares: float) -> list[float]:
        """Return quantiles of the divergence over all predictions, in nats, interpolated linearly."""
        return [float(each) for each in np.quantile(torch.cat(self.values).double().numpy(), shares)]


@dataclass(frozen=True)
class _Kept:
    """What is kept of the intact model's predictions for a batch: the logits, or the inputs of the head."""

    targets: Targets
    values: Tensor


class Intact:
    """The intact model's predictions on a text, with which any number of models can be compared.

    The model runs once over the text. Of a language model the inputs of the head are kept where a token is predicted
    [prediction, hidden], of a classifier the logits. The head is called again for every comparison.

    Args:
        stack: The blocks of the intact model, which must be intact at this moment; its head must not change later.
        batches: The text; each batch is padded on the right.
        classes: How many tokens of the vocabulary count; see `compared`.
        masks: For each batch where something is to be predicted [batch, position], if not at every position that has
            a target; see `Targets.mask`.

    Attributes:
        kind: What the model predicts: the next token, or a label.

    Raises:
        PredictionError: the model predicts neither next tokens nor labels.
        CalibrationError: the text holds nothing to predict.
        NonFiniteError: a prediction is a NaN or an infinity.
    """

    def __init__(
        self,
        stack: BlockStack,
        batches: Iterable[Batch],
        *,
        classes: int | None = None,
        masks: Iterable[Tensor] | None = None,
    ) -> None:
        self._head, self._classes = Head(stack), classes
        self._form: Any = ModelOutput
        self.kind = self._head.kind
        self._batches: list[_Kept] = []
        with torch.no_grad(), in_eval_mode(stack.model):
            for batch, mask in zip(batches, repeat(None) if masks is None else masks, strict=masks is not None):
                batch = _on(stack, batch)
                output = run(self._head.backbone, batch)
                targets = self._head.targets(batch, output)
                if mask is not None:
                    targets = replace(targets, mask=targets.mask & mask.to(targets.mask.device))
                if self.kind == "label":
                    values = self._head.label_logits(output, batch)
                else:
                    hidden = output[self._head.field]
                    values = hidden[targets.mask.to(hidden.device)]
                if not values.isfinite().all():
                    raise NonFiniteError("what the intact model predicts is a NaN or an infinity")
                self._batches.append(_Kept(targets, values))
                self._form = type(output)
        if self._batches and not any(kept.targets.mask.any() for kept in self._batches):
            raise CalibrationError("the text has nothing to predict: every row is a single token")

    def divergence(self, stack: BlockStack) -> Divergence:
        """Compare a model with the intact one.

        Args:
            stack: The blocks of the model. It may lie on other devices than the intact one.

        Raises:
            PredictionError: the models predict different things.
            NonFiniteError: a divergence is a NaN or an infinity.
        """
        head, divergence = Head(stack), Divergence()
        if head.kind != self.kind:
            raise PredictionError(f"one model predicts the {self.kind}, the other the {head.kind}")
        with torch.no_grad(), in_eval_mode(stack.model):
            for number, kept in enumerate(self._batches):
                output = run(head.backbone, _on(stack, kept.targets.batch))
                if kept.targets.mask.any():
                    (predictions,) = self.compared(number, head, [output])
                    divergence.add(predictions, kept.targets)
        return divergence

    @property
    def commonest_label(self) -> float | None:
        """The share of rows with the label that the model gives most often; None for a language model."""
        if self.kind != "label":
            return None
        counts = torch.cat([kept.values.argmax(dim=-1).cpu() for kept in self._batches]).bincount()
        return float(counts.max() / counts.sum())

    @property
    def with_images(self) -> list[bool]:
        """Which of the rows that predict something hold images."""
        rows = ((kept.targets.batch, int(kept.targets.mask.any(dim=1).sum())) for kept in self._batches)
        return [holds_images(batch) for batch, count in rows for _ in range(count)]

    def targets(self, number: int) -> Targets:
        """Return what is predicted in a batch, by its number in the text."""
        return self._batches[number].targets

    def compared(self, number: int, head: Head, outputs: Sequence[Any]) -> list[Compared]:
        """Compare outputs of backbones on a batch in which something is predicted; see `compared`.

        The intact model's logits are computed once for all of them.

        Args:
            number: The batch's number in the text.
            head: The head that turns the outputs into predictions.
            outputs: What a backbone puts out for the batch, such as those of a model with one or another block removed.
        """
        kept = self._batches[number]
        if self.kind == "label":
            batch = kept.targets.batch
            return [compared(kept.values, head.label_logits(output, batch)) for output in outputs]
        size = max(1, CHUNK_LOGITS // max(self._head.num_classes, head.num_classes))
        own = [output[head.field] for output in outputs]
        mask = kept.targets.mask.to(own[0].device)
        rows = [hidden[mask].split(size) for hidden in own]
        parts: list[list[Compared]] = [[] for _ in outputs]
        for at, expected in enumerate(kept.values.split(size)):
            given = self._form(**{self._head.field: expected[None]})
            logits = self._head.token_logits(given, expected)
            ready = Expected(logits, _classes(logits.shape[-1], head.num_classes, self._classes), own[0].dtype)
            del logits
            for done, output, mine in zip(parts, outputs, rows, strict=True):
                done.append(ready.compared(head.token_logits(output, mine[at])))
            del ready  # so that it does not exist together with the next
        return [
            Compared(*(torch.cat([getattr(part, each.name) for part in done]) for each in fields(Compared)))
            for done in parts
        ]


def _on(stack: BlockStack, batch: Batch) -> Batch:
    """Return a batch on the device of a model's token ids."""
    return {name: value.to(stack.device) for name, value in batch.items()}
