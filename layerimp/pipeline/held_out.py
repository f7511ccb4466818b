"""The loss of a model on held-out calibration text, which is the measure of quality if there are no tasks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from layerimp.calibration.splits import KEEPING_ONE_IN, hold_out
from layerimp.errors import CalibrationError
from layerimp.evaluator import Evaluator
from layerimp.healing.loss import HeldOutLoss
from layerimp.metric import Likelihood, Metric, unigram
from layerimp.models.discovery import find_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.progress import Progress


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
        likelihood = Likelihood(
            tuple(-total for total in loss.totals), tuple(map(float, loss.counts)), unigram(self._wanted, self._classes)
        )
        value = likelihood.metric(likelihood.loss)
        error = None if likelihood.stderr is None or math.isinf(value) else value * likelihood.stderr
        return [Metric(self.name, self._metric, value, error, False, likelihood=likelihood, hashes=self._hashes)]


def with_quality(
    intact: BlockStack, text: CalibrationSet, evaluators: Mapping[str, Evaluator], progress: Progress
) -> tuple[CalibrationSet, dict[str, Evaluator]]:
    """Return the text and the evaluators of a run that has to measure quality.

    If no evaluator measures quality, a part of the text is held out to measure it on, and scorers and healers get the
    rest.

    Raises:
        CalibrationError: there is too little text to hold out a part of it.
    """
    if any(evaluator.kind == "quality" for evaluator in evaluators.values()):
        return text, dict(evaluators)
    rest, held = hold_out(text)
    if not held.rows:
        raise CalibrationError(
            f"without tasks one row of {KEEPING_ONE_IN} is held out to measure what is kept, and there are "
            f"{len(text.rows)}; draw more (--samples), or name tasks (--tasks)"
        )
    progress.note(f"no tasks: what is kept is measured on {len(held.rows)} held-out rows of {text.source}")
    return rest, {HeldOut.name: HeldOut(intact, held), **evaluators}
