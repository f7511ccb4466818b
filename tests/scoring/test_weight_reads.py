"""Scoring reads the weights once before its passes, and not again for the same model."""

from __future__ import annotations

from support.tiny import tiny
from support.weight_reads import WeightReads

import layerimp
from layerimp.testing import batch

FORWARD = ["avss", "block-influence", "angular", "relative-magnitude"]


def test_nothing_but_the_passes_reads_weights_twice() -> None:
    model = tiny("llama")
    with WeightReads(model) as first:
        scores = layerimp.score(model, [batch()], FORWARD)
    assert first.by_path == {path: 1 for path, _ in model.named_parameters()}
    with WeightReads(model) as second:
        again = layerimp.score(model, [batch()], FORWARD)
    assert not second.by_path
    assert again == scores
