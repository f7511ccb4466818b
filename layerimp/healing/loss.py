"""What a model loses per prediction on text that was held out, and which text that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from transformers.utils.generic import ModelOutput

from layerimp.blocks.forward import run
from layerimp.blocks.head import Head, Targets
from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import CalibrationError, NonFiniteError

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch, BlockStack

ONE_IN = 8
"""One row in so many is held out."""


def split(batches: Iterable[Batch]) -> tuple[list[Batch], list[Batch]]:
    """The text to heal on, and the text that is held out: every eighth row, or the last one of fewer.

    Raises:
        CalibrationError: there are fewer than two rows.
    """
    text = list(batches)
    rows = sum(len(batch["input_ids"]) for batch in text)
    if rows < 2:
        raise CalibrationError(f"healing needs at least two rows of text, one of them to hold out, and got {rows}")
    every = min(ONE_IN, rows)
    parts: tuple[list[Batch], list[Batch]] = ([], [])
    start = 0
    for batch in text:
        held = (torch.arange(start, start + len(batch["input_ids"])) + 1) % every == 0
        start += len(held)
        for part, chosen in zip(parts, (~held, held), strict=True):
            if chosen.any():
                part.append({name: value[chosen.to(value.device)] for name, value in batch.items()})
    return parts


class HeldOutLoss:
    """The mean loss per prediction, in nats: of the next tokens of the text, or of a classifier's labels.

    Args:
        intact: The blocks of the intact model. Where a classifier's text has no labels, it says what they are.
        batches: The text.

    Raises:
        PredictionError: the model predicts neither.
        CalibrationError: there is nothing to predict in the text.
    """

    def __init__(self, intact: BlockStack, batches: Sequence[Batch]) -> None:
        self._heads: dict[int, Head] = {}
        head = self._head(intact)
        self._targets: list[Targets] = []
        with torch.no_grad(), in_eval_mode(intact.model):
            for batch in batches:
                output = run(head.backbone, batch) if head.kind == "label" else ModelOutput()
                self._targets.append(head.targets(batch, output))
        self._count = sum(int(targets.mask.sum()) for targets in self._targets)
        if not self._count:
            raise CalibrationError("the text that is held out has nothing to predict: every row is a single token")

    def of(self, stack: BlockStack) -> float:
        """The loss of a model as it is now.

        Raises:
            NonFiniteError: it is a NaN or an infinity.
        """
        head = self._head(stack)
        total = 0.0
        with torch.no_grad(), in_eval_mode(stack.model):
            for targets in self._targets:
                log_probs = head.log_probs(run(head.backbone, targets.batch), targets)
                total -= float(log_probs[targets.mask.to(log_probs.device)].double().sum())
        if not abs(total) < float("inf"):
            raise NonFiniteError("what the model predicts is a NaN or an infinity")
        return total / self._count

    def _head(self, stack: BlockStack) -> Head:
        key = id(stack.model)
        if key not in self._heads:
            self._heads[key] = Head(stack)
        return self._heads[key]
