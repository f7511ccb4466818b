"""Training of a pruned model to match the intact one: both run on the same text, and their predictions are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional
from transformers.utils.generic import ModelOutput

from layerimp.blocks.forward import run
from layerimp.blocks.head import Head
from layerimp.blocks.modes import in_eval_mode
from layerimp.stats import chunks, working_dtype

if TYPE_CHECKING:
    from layerimp.blocks.head import Targets
    from layerimp.blocks.stack import Batch
    from layerimp.healer import Case

CHUNK_LOGITS = 1 << 25
"""The number of logits of each model that exist at once, and of their gradients: 128 MiB in float32. With fewer, the
head's matrix would be read more often."""


class Teaching:
    """The two models of a healer's case as pupil and teacher.

    Both run on one batch: the pruned model, the pupil, with a graph for gradients if these are enabled; the intact
    model, the teacher, without. Neither uses dropout.

    Args:
        case: The case.

    Raises:
        PredictionError: the models predict neither the next token nor a label.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._ours, self._theirs = Head(case.pruned), Head(case.intact)

    def predictions(self, batch: Batch) -> int:
        """Return the number of predictions in a batch: one for each row of a classifier."""
        if self._ours.kind == "label":
            return len(batch["input_ids"])
        return int(self._theirs.targets(batch, ModelOutput()).mask.sum())

    def divergence(self, batch: Batch) -> tuple[Tensor, int]:
        """Return the Kullback-Leibler divergence of the pupil's predictions from the teacher's, over a batch.

        The logits of language models exist for a few tokens at a time.

        Returns:
            The sum in nats, and the number of predictions.
        """
        with torch.no_grad(), in_eval_mode(self._case.intact.model):
            expected = run(self._theirs.backbone, batch)
        targets = self._theirs.targets(batch, expected)
        with in_eval_mode(self._case.pruned.model):
            output = run(self._ours.backbone, batch)
            return _divergence(self._ours, output, self._theirs, expected, targets), int(targets.mask.sum())


def _divergence(ours: Head, output: ModelOutput, theirs: Head, expected: ModelOutput, targets: Targets) -> Tensor:
    """Return the divergence summed over all predictions; the gradient goes to `output`.

    The gradient of a language model is computed at once, so that no logits are kept for the backward pass.
    """
    if ours.kind == "label":
        with torch.no_grad():
            aim = theirs.label_logits(expected, targets.batch)
        return _between(ours.label_logits(output, targets.batch), aim)
    hidden, aims = output[ours.field].detach(), expected[theirs.field]
    mask, size = targets.mask.to(hidden.device), max(1, CHUNK_LOGITS // ours.num_classes)
    total, slopes = hidden.new_zeros((), dtype=working_dtype(hidden.dtype)), [hidden.new_zeros(0, hidden.shape[-1])]
    for part, aim in zip(hidden[mask].split(size), aims[targets.mask.to(aims.device)].split(size), strict=True):
        leaf = part.requires_grad_()
        with torch.no_grad():
            expecting = theirs.token_logits(expected, aim)
        with torch.enable_grad():
            logits = ours.token_logits(output, leaf)
        lost, to_logits = _sloping(logits.detach(), expecting.to(logits.device))
        slopes += torch.autograd.grad(logits, leaf, to_logits)
        total += lost
        del logits, expecting, to_logits  # so that they do not exist together with the next ones
    slope = torch.zeros_like(hidden)
    slope[mask] = torch.cat(slopes)
    joined = (output[ours.field] * slope).sum(dtype=working_dtype(slope.dtype))
    value: Tensor = joined - joined.detach() + total.to(joined)  # the total, with the gradient that is known
    return value


def _sloping(logits: Tensor, aim: Tensor) -> tuple[Tensor, Tensor]:
    """Return the divergence as `_between` does, and its gradient [row, class]: a difference of probabilities.

    A graph would keep several tensors of this size, each too large for the processor's cache. On a CPU, `softmax` takes
    half the time of `exp`.
    """
    dtype = working_dtype(logits.dtype)
    total, slope = logits.new_zeros((), dtype=dtype), torch.empty_like(logits)
    for own, expected, part in zip(chunks(logits), chunks(aim), chunks(slope), strict=True):
        own, expected = own.to(dtype), expected.to(dtype)
        own_shares, shares = own.softmax(dim=-1), expected.softmax(dim=-1)
        total += _normaliser(own, own_shares) - _normaliser(expected, shares)
        total += torch.dot(shares.flatten(), (expected - own).flatten())
        part.copy_(own_shares.sub_(shares))
    return total, slope


def _normaliser(scores: Tensor, shares: Tensor) -> Tensor:
    """Return the logarithms of the sums of exponentials of scores [row, class], summed over rows, by their softmax."""
    return (scores.amax(dim=-1) - shares.amax(dim=-1).log()).sum()


def _between(logits: Tensor, aim: Tensor) -> Tensor:
    """Return the divergence between the distributions of logits [row, class], summed over rows, in float32 or wider."""
    dtype = working_dtype(logits.dtype)
    own, expected = (functional.log_softmax(scores.to(dtype), dim=-1) for scores in (logits, aim.to(logits.device)))
    return functional.kl_div(own, expected, reduction="sum", log_target=True)
