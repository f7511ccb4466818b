"""The result of a search for the most blocks that may be removed."""

from __future__ import annotations

from typing import Literal

from layerimp.report.results.measures import Share
from layerimp.report.results.part import Part


class TriedModel(Part):
    """A model that a search tried."""

    count: int
    """The number of removed blocks."""
    retained: Share | None
    """The share on the documents that the search uses; null if the model could not be measured."""
    confirmed: Share | None
    """The share on all other documents."""


class MostBlocks(Part):
    """How many blocks may be removed by one scorer, unhealed or healed."""

    count: int
    """The number of blocks; 0 if one is too many."""
    blocks: list[int]
    """The blocks, in order of removal."""
    retained: Share | None
    """The share on the documents that the search uses; null if `count` is 0."""
    confirmed: Share | None
    """The share on the documents that the search does not use; null if `count` is 0."""
    before_confirmation: int
    """The number that the search ended with; if it exceeds `count`, `confirmed` took part in the choice."""
    tried: list[TriedModel]
    """The models that were tried, by the number of removed blocks."""


class QualitySearch(Part):
    """A search for the most blocks that may be removed. All metrics are for documents that it did not use."""

    keep: float
    """The share that has to be retained."""
    keep_of: Literal["quality", "agreement"] = "quality"
    """What it is a share of: the quality, or the agreement, which is the mean over rows of the share of predictions
    with the same top token or label as the intact model's."""
    measured_on: list[str]
    """The tasks, or the text, on which the share is measured."""
    held_out: bool
    """Whether it is measured on held-out calibration text, because there are no tasks."""
    order: list[str]
    """The labels, from the most removable blocks to the fewest."""
    removable: dict[str, MostBlocks]
    """The results, by label of the scorer; SCORER+HEALER for healed models."""
