"""What a model loses per prediction on text that was held out, and which text that is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers.utils.generic import ModelOutput

from layerimp.blocks.forward import run
from layerimp.blocks.head import Head, Targets
from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import CalibrationError, NonFiniteError
from layerimp.healer import Loss

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.healing.reruns import Reruns

ONE_IN = 8
"""Of so many rows one is held out to choose by, and one to measure on."""
MOST = 64
"""So many rows are held out for each at most: each value that is tried costs a run of them."""


@dataclass(frozen=True)
class Text:
    """The text of a healing, in three parts that share no row.

    Attributes:
        healing: What the healer fits to.
        choosing: What it chooses its options by.
        measuring: What the result is measured on: no choice has seen it.
    """

    healing: list[Batch]
    choosing: list[Batch]
    measuring: list[Batch]


def split(batches: Iterable[Batch]) -> Text:
    """The three parts of a text: of every eight rows the last two are held out, or the last two of fewer.

    Of more than 512 rows 64 are held out for each part, as evenly.

    Raises:
        CalibrationError: there are fewer than three rows.
    """
    text = list(batches)
    rows = sum(len(batch["input_ids"]) for batch in text)
    if rows < 3:
        raise CalibrationError(
            f"healing needs at least three rows of text, one to choose by and one to measure on, and got {rows}"
        )
    every = min(max(ONE_IN, math.ceil(rows / MOST)), rows)
    found = Text([], [], [])
    start = 0
    for batch in text:
        place = torch.arange(start, start + len(batch["input_ids"])) % every
        start += len(place)
        parts = ((found.healing, place < every - 2), (found.choosing, place == every - 2))
        for part, chosen in (*parts, (found.measuring, place == every - 1)):
            if chosen.any():
                part.append({name: value[chosen.to(value.device)] for name, value in batch.items()})
    return found


class HeldOutLoss:
    """Measures what models lose on the same text: of its next tokens, or of a classifier's labels.

    Args:
        intact: The blocks of the intact model. Where a classifier's text has no labels, it says what they are.
        batches: The text.

    Attributes:
        kind: What is predicted: the next token, or a label.
        num_classes: How many tokens or labels there are to predict.

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
        self.kind, self.num_classes = head.kind, head.num_classes
        self._counts = [count for targets in self._targets for count in targets.mask.sum(dim=1).tolist()]
        if not sum(self._counts):
            raise CalibrationError("the text that is held out has nothing to predict: every row is a single token")

    @property
    def wanted(self) -> list[tuple[int, ...]]:
        """What is to be predicted in each row: the ids of its tokens, or its label."""
        return [
            tuple(ids[chosen].tolist())
            for targets in self._targets
            for ids, chosen in zip(targets.ids, targets.mask, strict=True)
        ]

    def of(self, stack: BlockStack, reruns: Reruns | None = None) -> Loss:
        """The loss of a model as it is now.

        Args:
            stack: The model's blocks.
            reruns: What is remembered of its earlier runs on this text; the rest alone is computed.

        Raises:
            NonFiniteError: it is a NaN or an infinity.
        """
        head = self._head(stack)
        totals: list[float] = []
        hits = 0
        with torch.no_grad(), in_eval_mode(stack.model):
            for targets in self._targets:
                with nullcontext() if reruns is None else reruns.of(targets.batch):
                    output = run(head.backbone, targets.batch)
                totals += (-head.log_probs(output, targets).double().sum(dim=1)).tolist()
                if head.kind == "label":
                    hits += int(head.hits(output, targets).sum())
        if not math.isfinite(math.fsum(totals)):
            raise NonFiniteError("what the model predicts is a NaN or an infinity")
        return Loss(totals, self._counts, hits if head.kind == "label" else None)

    def _head(self, stack: BlockStack) -> Head:
        key = id(stack.model)
        if key not in self._heads:
            self._heads[key] = Head(stack)
        return self._heads[key]
