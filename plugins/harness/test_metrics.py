"""The errors of metrics that are no means are those of many draws."""

from __future__ import annotations

import numpy as np
import pytest
from layerimp_harness.metrics import Saturating, standard_error
from lm_eval.api import metrics as lm_metrics


@pytest.mark.parametrize("name", ["weighted_perplexity", "bits_per_byte", "weighted_mean", "perplexity", "median"])
def test_errors_are_those_of_many_draws(name):
    rng = np.random.default_rng(0)
    values, units = rng.normal(-30, 1, 400), rng.integers(5, 15, 400)
    pairs = [(float(v * u / 10), int(u)) for v, u in zip(values, units, strict=True)]
    items = pairs if name not in ("perplexity", "median") else (values / 10).tolist()
    aggregation = getattr(lm_metrics, name)
    draws = [standard_error(Saturating(aggregation), items, draws=400, rng=np.random.default_rng(i)) for i in (1, 1, 2)]
    slow = np.std([float(aggregation([items[i] for i in rng.integers(400, size=400)])) for _ in range(400)], ddof=1)
    assert draws[0] == draws[1]
    assert (draws[0] != draws[2]) is (name == "median")  # the others have a closed form
    assert draws[0] == pytest.approx(slow, rel=0.25 if name == "median" else 0.1)
