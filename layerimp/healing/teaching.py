"""Training of a pruned model to match the intact one: both run on the same text, and their predictions are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.utils.generic import ModelOutput

from layerimp.blocks.forward import hidden_states, run
from layerimp.blocks.head import Head
from layerimp.blocks.modes import in_eval_mode
from layerimp.fidelity.intact import CHUNK_LOGITS
from layerimp.stats import working_dtype
from layerimp.steps import kept_halves
from layerimp.sweep.watching import watching

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from layerimp.blocks.head import Targets
    from layerimp.blocks.stack import Batch
    from layerimp.healer import Case

DRAWS = 8
"""The number of tokens drawn from each prediction to estimate the metric of a head."""


class Teaching:
    """The two models of a healer's case as pupil and teacher.

    Each method runs both models on one batch: the pruned model, the pupil, with a graph for gradients if these are
    enabled; the intact model, the teacher, without. Neither uses dropout.

    Args:
        case: The case.

    Raises:
        PredictionError: the models predict neither the next token nor a label.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._ours, self._theirs = Head(case.pruned), Head(case.intact)
        kept = kept_halves([step for gap in case.gaps for step in gap.steps], len(case.intact))
        # After a kept block, the stream should equal the next kept block's input in the intact model.
        ends = [attention - 1 for attention, _ in kept[1:]] + [len(case.intact) - 1]
        first = max(case.gaps[0].position.block - 1, 0)
        self._ends = list(enumerate(ends))[first:]

    @property
    def predicts(self) -> str:
        """What the models predict: `next-token`, or `label`."""
        return self._ours.kind

    def predictions(self, batch: Batch) -> int:
        """Return the number of predictions in a batch: one for each row of a classifier."""
        if self.predicts == "label":
            return len(batch["input_ids"])
        return int(self._theirs.targets(batch, ModelOutput()).mask.sum())

    def divergence(self, batch: Batch) -> tuple[Tensor, int]:
        """Return the Kullback-Leibler divergence of the pupil's predictions from the teacher's, over a batch.

        The logits of language models exist for a few tokens at a time.

        Returns:
            The sum in nats, and the number of predictions.
        """
        expected = self._taught(batch)
        targets = self._theirs.targets(batch, expected)
        with in_eval_mode(self._case.pruned.model):
            output = run(self._ours.backbone, batch)
            return _divergence(self._ours, output, self._theirs, expected, targets), int(targets.mask.sum())

    def text(self, batch: Batch) -> tuple[Tensor, int]:
        """Return the pupil's negative log-likelihood of a batch: of its next tokens, or of its labels.

        The teacher takes no part, unless it has to provide the labels. The logits of language models exist for a few
        tokens at a time.

        Returns:
            The sum in nats, and the number of predictions.
        """
        with in_eval_mode(self._case.pruned.model):
            output = run(self._ours.backbone, batch)
            unlabelled = self.predicts == "label" and "labels" not in batch
            targets = self._theirs.targets(batch, self._taught(batch) if unlabelled else output)
            values, slopes = self._ours.gradient(output, targets)
        return _with_slopes(values.sum(), output, slopes), int(targets.mask.sum())

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the inputs of the heads of pupil and teacher where a token is predicted, each [token, hidden]."""
        expected = self._taught(batch)
        mask = self._theirs.targets(batch, expected).mask
        with in_eval_mode(self._case.pruned.model):
            own = run(self._ours.backbone, batch)[self._ours.field]
        aim = expected[self._theirs.field]
        return own[mask.to(own.device)], aim[mask.to(aim.device)].to(own.device)

    def streams(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Return the residual streams of pupil and teacher after each kept block, from the first gap on.

        At a gap, the teacher's stream is taken after the removed sublayers.

        Returns:
            Pairs of real tokens' states [token, hidden].
        """
        case, mask = self._case, batch["attention_mask"].bool()
        ours: dict[int, Any] = {}
        theirs: dict[int, Any] = {}
        with (
            watching({here: case.pruned[here] for here, _ in self._ends}, put_out=ours.__setitem__),
            watching({there: case.intact[there] for _, there in self._ends}, put_out=theirs.__setitem__),
        ):
            self._taught(batch)
            with in_eval_mode(case.pruned.model):
                run(self._ours.backbone, batch)
        pairs = []
        for here, there in self._ends:
            state, aim = hidden_states(ours[here]), hidden_states(theirs[there])
            pairs.append((state[mask.to(state.device)], aim[mask.to(aim.device)].to(state.device)))
        return pairs

    def head_metric(self, batches: Iterable[Batch]) -> Tensor:
        """Estimate how much a change of the last hidden state affects a language model's predictions, by direction.

        To second order the divergence after a change x is x M x / 2, where M is the covariance of the unembedding's
        rows under the predicted distribution (the Fisher matrix of the softmax with respect to the hidden state). M is
        estimated from tokens drawn from the teacher's predictions.

        Returns:
            M [hidden, hidden] in float32, the mean over the predictions of `batches`.

        Raises:
            ModelError: the logits are not a product of the last hidden state and a matrix.
        """
        total: Tensor | None = None
        count = 0
        generator = torch.Generator().manual_seed(0)
        for batch in batches:
            expected = self._taught(batch)
            targets = self._theirs.targets(batch, expected)
            weight = self._theirs.unembedding(expected).weight
            hidden = expected[self._theirs.field]
            for rows in hidden[targets.mask.to(hidden.device)].split(max(1, CHUNK_LOGITS // self._theirs.num_classes)):
                with torch.no_grad():
                    probable = self._theirs.token_logits(expected, rows).float().softmax(dim=-1).cpu()
                    drawn = torch.multinomial(probable, DRAWS, replacement=True, generator=generator)
                    away = weight[drawn.to(weight.device)].float()  # [token, draw, hidden]
                    away = (away - away.mean(dim=1, keepdim=True)).flatten(0, 1)
                    part = away.T @ away * (1 / (DRAWS - 1))
                total = part if total is None else total + part
                count += len(rows)
        assert total is not None
        return total / count

    def _taught(self, batch: Batch) -> ModelOutput:
        """Return the output of the teacher's backbone."""
        with torch.no_grad(), in_eval_mode(self._case.intact.model):
            output: ModelOutput = run(self._theirs.backbone, batch)
        return output


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
            lost = _between(ours.token_logits(output, leaf), expecting)
        slopes += torch.autograd.grad(lost, leaf)
        total += lost.detach()
    slope = torch.zeros_like(hidden)
    slope[mask] = torch.cat(slopes)
    return _with_slopes(total, output, {ours.field: slope})


def _with_slopes(value: Tensor, output: ModelOutput, slopes: Mapping[str, Tensor]) -> Tensor:
    """Return a value whose gradient with respect to fields of an output is known already."""
    parts = [(output[field] * slope).sum(dtype=working_dtype(slope.dtype)) for field, slope in slopes.items()]
    joined = torch.stack(parts).sum()
    return joined - joined.detach() + value.to(joined)


def _between(logits: Tensor, aim: Tensor) -> Tensor:
    """Return the divergence between the distributions of logits [row, class], summed over rows, in float32 or wider."""
    dtype = working_dtype(logits.dtype)
    own, expected = (functional.log_softmax(scores.to(dtype), dim=-1) for scores in (logits, aim.to(logits.device)))
    return functional.kl_div(own, expected, reduction="sum", log_target=True)
