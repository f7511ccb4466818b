"""The loss of a model on held-out calibration text, which is the measure of quality if there are no tasks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from layerimp.evaluator import Evaluator, Likelihood, Metric, unigram
from layerimp.healing.loss import HeldOutLoss
from layerimp.models.discovery import find_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet

ONE_IN = 4
"""One row out of this many is held out."""


def hold_out(text: CalibrationSet) -> tuple[CalibrationSet, CalibrationSet]:
    """Split off every fourth row of a text: return the text for scorers and healers, and the held-out rows."""
    seen = [number for number in range(len(text.rows)) if number % ONE_IN != ONE_IN - 1]
    held = [number for number in range(len(text.rows)) if number % ONE_IN == ONE_IN - 1]
    rest, rows = (
        replace(
            text,
            rows=tuple(text.rows[n] for n in part),
            labels=tuple(text.labels[n] for n in part) if text.labels else (),
        )
        for part in (seen, held)
    )
    return rest, rows


class HeldOut(Evaluator):
    """The likelihood of the next tokens, or of a classifier's labels, in text that no scorer or healer has seen.

    Args:
        intact: The blocks of the intact model. Its predictions serve as labels if a classifier's text has none.
        text: The text.

    Raises:
        PredictionError: the model predicts neither next tokens nor labels.
        CalibrationError: the text holds nothing to predict.
    """

    name = "held-out text"
    kind = "quality"

    def __init__(self, intact: BlockStack, text: CalibrationSet) -> None:
        super().__init__()
        loss = HeldOutLoss(intact, list(text))
        self._wanted, self._classes = loss.wanted, loss.num_classes
        # Equal rows get the same number, so that they fall into the same half; the halves are of equal size.
        order = {row: number for number, row in enumerate(sorted(set(text.rows)))}
        self._hashes = tuple(order[row] for row in text.rows)
        labelled = loss.kind == "label"
        self._text = replace(text, labels=tuple(row[0] for row in self._wanted)) if labelled else text
        self._metric = "label_perplexity" if labelled else "token_perplexity"

    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Measure `model`; the tokenizer is not needed.

        Raises:
            NonFiniteError: a prediction is a NaN or an infinity.
        """
        stack = find_blocks(model)
        loss = HeldOutLoss(stack, list(self._text)).of(stack)
        found = Likelihood(
            tuple(-total for total in loss.totals), tuple(map(float, loss.counts)), unigram(self._wanted, self._classes)
        )
        value = found.metric(found.loss)
        error = None if found.stderr is None or math.isinf(value) else value * found.stderr
        return [Metric(self.name, self._metric, value, error, False, likelihood=found, hashes=self._hashes)]
