"""What `linear` brings back: a table of all models, from `chosen.py`."""

from __future__ import annotations

from statistics import fmean, median

import chosen
from chosen import BASELINES, MEASURES, STATES, values


def table() -> tuple[list[str], list[list[str]]]:
    """Return how models do unhealed and healed, over all methods that look at the model: the middle and the best."""
    rows = []
    for (model, count), methods in chosen.cells().items():
        name = chosen.judged_by(model, methods)[0]
        best = max if MEASURES[name].factor > 0 else min
        pairs = [
            [fmean(known) for state in STATES[:2] if (known := values(lines, state, name))]
            for method, lines in methods.items()
            if method not in BASELINES
        ]
        both = [pair for pair in pairs if len(pair) == len(STATES[:2])]
        ends = [
            " → ".join(MEASURES[name].show(figure(end)) for end in zip(*both, strict=True)) for figure in (median, best)
        ]
        rows.append([chosen.title(model, count), name, str(len(both)), *ends])
    return ["removed", "measure", "methods", "median, unhealed → healed", "best, unhealed → healed"], rows
