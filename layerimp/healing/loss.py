"""The loss of a model per prediction on held-out text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from transformers.utils.generic import ModelOutput

from layerimp.blocks.forward import run
from layerimp.blocks.head import Head, Targets
from layerimp.blocks.modes import in_eval_mode
from layerimp.errors import CalibrationError, NonFiniteError
from layerimp.fidelity import Loss

if TYPE_CHECKING:
    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.healing.reruns import Reruns


class HeldOutLoss:
    """Measures the losses of several models on one text: for its next tokens, or for a classifier's labels.

    Args:
        intact: The blocks of the intact model. Its predictions serve as labels if a classifier's text has none.
        batches: The text.

    Attributes:
        kind: What the models predict: the next token, or a label.
        num_classes: The number of possible tokens or labels.

    Raises:
        PredictionError: the model predicts neither next tokens nor labels.
        CalibrationError: the text holds nothing to predict.
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
        """The targets of each row: the ids of its tokens, or its label."""
        return [
            tuple(ids[chosen].tolist())
            for targets in self._targets
            for ids, chosen in zip(targets.ids, targets.mask, strict=True)
        ]

    def of(self, stack: BlockStack, reruns: Reruns | None = None) -> Loss:
        """Measure the loss of a model in its current state.

        Args:
            stack: The model's blocks.
            reruns: Stored outputs of the model's earlier runs on this text, which are not computed again.

        Raises:
            NonFiniteError: the loss is a NaN or an infinity.
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
                    labels = head.label_logits(output, targets.batch).argmax(dim=-1)
                    hits += int((labels == targets.ids[:, 0].to(labels.device)).sum())
        if not math.isfinite(math.fsum(totals)):
            raise NonFiniteError("what the model predicts is a NaN or an infinity")
        return Loss(totals, self._counts, hits if head.kind == "label" else None)

    def _head(self, stack: BlockStack) -> Head:
        key = id(stack.model)
        if key not in self._heads:
            self._heads[key] = Head(stack)
        return self._heads[key]
