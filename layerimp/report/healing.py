"""The part of a report that describes healed models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.healer import Repair


@dataclass(frozen=True)
class Healing:
    """What a healer did to a pruned model.

    Attributes:
        scorer: The label of the scorer whose plan pruned the model.
        healer: The label of the healer.
        repairs: What was done at each gap.
        loss: The mean loss per prediction, in nats, of the `intact`, the `pruned` and the `healed` model, on rows of
            the calibration text that were used neither for the fit nor for any choice.
        accuracy: For a classifier, the share of these rows that each of the three models labels correctly; else empty.
        recovered: The share of the lost quality that healing brought back (loss, or a classifier's accuracy); None if
            the pruned model had lost nothing.
    """

    scorer: str
    healer: str
    repairs: Sequence[Repair]
    loss: Mapping[str, float]
    accuracy: Mapping[str, float]
    recovered: float | None
