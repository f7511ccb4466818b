"""Ties between equal scores."""

from __future__ import annotations

from collections.abc import Mapping

from layerimp.steps import Step, sublayers_of


def weakest_first(scores: Mapping[Step, float]) -> list[Step]:
    """The steps from the lowest score to the highest; of two equal scores the deeper step comes first."""
    return sorted(scores, key=lambda step: (scores[step], -sublayers_of(step)[0].depth))
