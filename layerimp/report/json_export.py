"""The findings of a grid as the JSON document that `report.grid_documents` declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layerimp.report import conversion, data, findings, results
from layerimp.report.conversion import finite
from layerimp.report.grid_documents import (
    Difference,
    Entry,
    Findings,
    Interval,
    ModelFindings,
    Original,
    Row,
    ScorerFindings,
    Size,
    Stability,
)
from layerimp.report.statistics import agreement, intervals

if TYPE_CHECKING:
    from layerimp.evaluator import Metric


def as_document(found: results.Findings) -> Findings:
    """Convert findings to the JSON document."""
    return {
        "schema_version": "layerimp.findings/2",
        "grid": {name: _plain(value) for name, value in found.design.asked.items()},
        "cells": dict(found.cells),
        "seconds": found.seconds,
        "versions": list(found.versions),
        "notes": list(found.notes),
        "failures": [{"cell": cell, "error": error} for cell, error in found.failures],
        "models": {label: _model(model) for label, model in found.models.items()},
    }


def _model(model: findings.ModelFindings) -> ModelFindings:
    return {
        "num_blocks": model.num_blocks,
        "size": _size(model.size),
        "scorers": {label: _scorer(one) for label, one in model.scored.items()},
        "tau": [{"scorers": list(pair), "tau": tau} for pair, tau in model.agreement.items()],
        "removed": [
            {
                "pruner": pruner,
                "ratio": ratio,
                "scorer": scorer,
                "blocks": [list(one.blocks) for one in pruned],
                "stability": _stability(model.stability.get((pruner, ratio, scorer))),
            }
            for (pruner, ratio, scorer), pruned in model.pruned.items()
        ],
        "healed": [
            {
                "pruner": pruner,
                "ratio": ratio,
                "scorer": contender.scorer,
                "healer": contender.healer,
                "repeats": [one.healing for one in healed],
            }
            for (pruner, ratio, contender), healed in model.healed.items()
        ],
        "retained": [
            {
                "pruner": pruner,
                "ratio": ratio,
                **conversion.retained(
                    {s: one for (p, r, s), one in model.retained.items() if (p, r) == (pruner, ratio)}
                ),
            }
            for pruner, ratio in dict.fromkeys((pruner, ratio) for pruner, ratio, _ in model.retained)
        ],
        "rows": [_row(row) for row in model.rows],
        "removable": [
            {
                "pruner": pruner,
                "scorer": label,
                "measured": list(one.measured),
                "levels": [
                    {
                        "keep": keep,
                        "counts": list(level.counts),
                        "value": _interval(level.mean),
                        "at_least": level.at_least,
                    }
                    for keep, level in one.levels.items()
                ],
            }
            for (pruner, label), one in model.removable.items()
        ],
    }


def _size(size: data.Size | None) -> Size | None:
    if size is None:
        return None
    return {"blocks": size.blocks, "parameters": size.parameters, "bytes": size.bytes}


def _scorer(scored: findings.Scored) -> ScorerFindings:
    entry: ScorerFindings = {
        "scores": [list(scores) for scores in scored.scores],
        "blocks": [_interval(mean) for mean in scored.means],
        "tau_between_repeats": scored.tau,
        "cost_in_bare_passes": scored.cost,
    }
    if list(scored.steps) != list(range(len(scored.steps))):
        entry["steps"] = list(scored.steps)
    return entry


def _stability(found: agreement.Stability | None) -> Stability | None:
    return None if found is None else {"jaccard": found.jaccard, "same": found.same}


def _row(row: findings.Row) -> Row:
    return {
        "pruner": row.pruner,
        "ratio": row.ratio,
        "task": row.task,
        "metric": row.metric,
        "documents": None if row.original is None else row.original.count,
        "higher_is_better": row.higher_is_better,
        "original": _original(row.original),
        "best_baseline": row.baselines.get(""),
        "best_healed_baselines": {healer: label for healer, label in row.baselines.items() if healer},
        "removed_blocks": row.removed_blocks,
        "removed_parameters": list(row.removed_parameters),
        "scorers": {label: _entry(entry) for label, entry in row.entries.items()},
    }


def _original(metric: Metric | None) -> Original | None:
    return None if metric is None else {"value": finite(metric.value), "stderr": finite(metric.stderr)}


def _entry(entry: findings.Entry) -> Entry:
    low, high = entry.ends or (None, None)
    return {
        "values": [finite(value) for value in entry.values],
        "value": _interval(entry.value),
        "low": finite(low),
        "high": finite(high),
        "retention": None if entry.retention is None else _interval(entry.retention),
        "retained": None if entry.retained is None else _interval(entry.retained),
        "to_random": None if entry.to_random is None else _difference(entry.to_random),
        "to_best_baseline": None if entry.to_baseline is None else _difference(entry.to_baseline),
        "to_unhealed": None if entry.to_unhealed is None else _difference(entry.to_unhealed),
        "rank": entry.rank,
    }


def _interval(value: intervals.Interval) -> Interval:
    return {"mean": finite(value.mean), "low": finite(value.low), "high": finite(value.high), "n": value.count}


def _difference(found: intervals.Difference) -> Difference:
    return {"mean": finite(found.mean), "low": finite(found.low), "high": finite(found.high), "p": finite(found.p)}


def _plain(value: Any) -> Any:
    """Convert the request, with null for infinite numbers, which options may hold but JSON cannot."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
