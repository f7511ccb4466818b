"""Measures how far models are from the intact one, to decide what healing keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.fidelity import Distance, Intact, Loss, repeated
from layerimp.models.traits import special_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerimp.blocks.stack import Batch, BlockStack
    from layerimp.fidelity import Divergence


class Judge:
    """Measures distances from the intact model, which runs once, on plain and on repeated rows.

    Args:
        intact: The blocks of the intact model.
        batches: Text that nothing is fitted to, padded on the right.

    Raises:
        PredictionError: the model predicts neither next tokens nor labels.
        CalibrationError: the text holds nothing to predict.
        NonFiniteError: a prediction is a NaN or an infinity.
    """

    def __init__(self, intact: BlockStack, batches: Sequence[Batch]) -> None:
        self._plain = Intact(intact, batches)
        self._repeated: Intact | None = None
        pairs = [] if self._plain.kind == "label" else list(repeated(batches, special_ids(intact.model)))
        if pairs:
            self._repeated = Intact(intact, [batch for batch, _ in pairs], masks=[mask for _, mask in pairs])

    def of(self, stack: BlockStack) -> Distance:
        """Measure a model in its current state.

        Raises:
            NonFiniteError: a divergence is a NaN or an infinity.
        """
        again = None if self._repeated is None else _loss(self._repeated.divergence(stack))
        return Distance(_loss(self._plain.divergence(stack)), again)


def _loss(divergence: Divergence) -> Loss:
    return Loss(divergence.totals, divergence.counts)
