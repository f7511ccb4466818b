"""Measures of a model on held-out calibration text: its loss, if there are no tasks, or its agreement."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from layerimp.calibration.splits import KEEPING_ONE_IN, hold_out
from layerimp.component import Options
from layerimp.errors import CalibrationError
from layerimp.evaluator import Evaluator
from layerimp.fidelity import Intact
from layerimp.healing.loss import HeldOutLoss
from layerimp.metric import Likelihood, Metric, mean_and_error, unigram
from layerimp.models.discovery import find_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.progress import Progress
    from layerimp.recipe import Recipe


class HeldOutOptions(Options):
    """What tells measures on held-out text apart."""

    text: str
    """The fingerprint of the text."""


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
    Config = HeldOutOptions

    def __init__(self, intact: BlockStack, text: CalibrationSet) -> None:
        super().__init__(HeldOutOptions(text=text.fingerprint))
        loss = HeldOutLoss(intact, list(text))
        self._wanted, self._classes = loss.wanted, loss.num_classes
        self._hashes = _numbered(text.rows)
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


class HeldOutAgreement(Evaluator):
    """The mean over rows of the share of predictions with the same top token, or label, as the intact model's.

    Args:
        intact: The blocks of the intact model, which runs now.
        text: Text that no scorer or healer has seen.

    Raises:
        PredictionError: the model predicts neither next tokens nor labels.
        CalibrationError: the text holds nothing to predict.
    """

    name = HeldOut.name
    kind = "quality"
    Config = HeldOutOptions

    def __init__(self, intact: BlockStack, text: CalibrationSet) -> None:
        super().__init__(HeldOutOptions(text=text.fingerprint))
        self._known = Intact(intact, list(text))
        shortest = 1 if self._known.kind == "label" else 2
        rows = [row for row in text.rows if len(row) >= shortest]
        self._hashes = _numbered(rows)

    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Measure `model`; the tokenizer is not needed.

        Raises:
            NonFiniteError: a prediction is a NaN or an infinity.
        """
        divergence = self._known.divergence(find_blocks(model))
        agreed = tuple(same / count for same, count in zip(divergence.agreed, divergence.counts, strict=True))
        value, error = mean_and_error(agreed)
        return [Metric(self.name, "agreement", value, error, floor=0.0, documents=agreed, hashes=self._hashes)]


def _numbered(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Number rows. Equal rows get the same number, so that they fall into the same half; halves are of equal size."""
    order = {row: number for number, row in enumerate(sorted(set(rows)))}
    return tuple(order[row] for row in rows)


def with_quality(
    recipe: Recipe, intact: BlockStack, text: CalibrationSet, evaluators: Mapping[str, Evaluator], progress: Progress
) -> tuple[CalibrationSet, dict[str, Evaluator]]:
    """Return the text and the evaluators of a run that searches for what keeps a share of the quality, or agrees.

    For an agreement, or if no evaluator measures quality, a part of the text is held out to measure it on, and scorers
    and healers get the rest.

    Raises:
        CalibrationError: there is too little text to hold out a part of it.
    """
    agreement = recipe.keep_of == "agreement"
    if not agreement and any(evaluator.kind == "quality" for evaluator in evaluators.values()):
        return text, dict(evaluators)
    rest, held = hold_out(text)
    if not held.rows:
        when, instead = ("", "") if agreement else ("without tasks ", ", or name tasks (--tasks)")
        raise CalibrationError(
            f"{when}one row of {KEEPING_ONE_IN} is held out to measure what is kept, and there are {len(text.rows)}; "
            f"draw more (--samples){instead}"
        )
    why, what = ("", "agrees") if agreement else ("no tasks: ", "is kept")
    progress.note(f"{why}what {what} is measured on {len(held.rows)} held-out rows of {text.source}")
    measure = HeldOutAgreement(intact, held) if agreement else HeldOut(intact, held)
    return rest, {measure.name: measure, **evaluators}
