"""The divergence of predictions from those of another model, and how often both have the same top choice."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from layerimp.errors import NonFiniteError
from layerimp.metric import clustered_stderr
from layerimp.stats import chunks, working_dtype

if TYPE_CHECKING:
    from layerimp.blocks.head import Targets


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
    return Expected(intact, common_classes(intact.shape[-1], logits.shape[-1], classes), logits.dtype).compared(logits)


def common_classes(intact: int, own: int, classes: int | None) -> int:
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
