"""The intact model's predictions on a text, with which other models are compared.

The logits of both models exist for a few tokens at a time. What is kept of the intact model is the input of its head,
so that it runs once, whatever the number of models that are compared with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from layerimp.blocks.forward import run
from layerimp.blocks.head import Head
from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import CalibrationError, NonFiniteError, PredictionError
from layerimp.fidelity.divergence import Compared, Divergence, Expected, common_classes, compared

if TYPE_CHECKING:
    from layerimp.blocks.head import Targets
    from layerimp.blocks.stack import Batch, BlockStack

CHUNK_LOGITS = 1 << 24
"""The number of logits that a tensor of them has at once: 64 MiB in float32. The intact model's are kept twice, as they
are and as weights."""


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
            ready = Expected(logits, common_classes(logits.shape[-1], head.num_classes, self._classes), own[0].dtype)
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
