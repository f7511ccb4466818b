"""What a comparison shows, as one JSON document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from layerimp.report.findings import Entry, Findings, ModelFindings, Row
from layerimp.report.statistics import Interval


def as_document(found: Findings) -> dict[str, Any]:
    """The findings as JSON."""
    document: dict[str, Any] = _plain(
        {
            "schema_version": "layerimp.findings/1",
            "grid": found.design.asked,
            "cells": dict(found.cells),
            "seconds": found.seconds,
            "versions": list(found.versions),
            "notes": list(found.notes),
            "failures": [{"cell": cell, "error": error} for cell, error in found.failures],
            "models": {label: _model(model) for label, model in found.models.items()},
        }
    )
    return document


def _model(model: ModelFindings) -> dict[str, Any]:
    return {
        "num_blocks": model.num_blocks,
        "size": None if model.size is None else asdict(model.size),
        "scorers": {
            label: {
                "scores": [list(scores) for scores in one.scores],
                "blocks": [_interval(block) for block in one.blocks],
                "tau_between_repeats": one.tau,
                "cost_in_bare_passes": one.cost,
            }
            for label, one in model.scored.items()
        },
        "tau": [{"scorers": list(pair), "tau": tau} for pair, tau in model.agreement.items()],
        "removed": [
            {
                "pruner": pruner,
                "ratio": ratio,
                "scorer": scorer,
                "blocks": [list(one.blocks) for one in found],
                "stability": asdict(stability) if (stability := model.stability.get((pruner, ratio, scorer))) else None,
            }
            for (pruner, ratio, scorer), found in model.pruned.items()
        ],
        "rows": [_row(row) for row in model.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    original = row.original
    return {
        "pruner": row.pruner,
        "ratio": row.ratio,
        "task": row.task,
        "metric": row.metric,
        "higher_is_better": row.higher_is_better,
        "original": None if original is None else {"value": original.value, "stderr": original.stderr},
        "best_baseline": row.baseline,
        "removed_blocks": row.removed_blocks,
        "removed_parameters": list(row.removed_parameters),
        "scorers": {label: _entry(entry) for label, entry in row.entries.items()},
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "values": list(entry.values),
        "value": _interval(entry.value),
        "stderr": entry.stderr,
        "retention": _interval(entry.retention),
        "to_random": _interval(entry.to_random),
        "to_best_baseline": _interval(entry.to_baseline),
        "rank": entry.rank,
    }


def _interval(value: Interval | None) -> dict[str, Any] | None:
    return None if value is None else {"mean": value.mean, "low": value.low, "high": value.high, "n": value.count}


def _plain(value: Any) -> Any:
    """Numbers that JSON has: an infinite perplexity becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
