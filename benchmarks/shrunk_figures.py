"""The figures of a smaller model in the results of shrink.py: each a value and its standard error, if known."""

from __future__ import annotations

from typing import Any

from layerimp.fidelity import Fidelity
from layerimp.report.results.shrunk import ShrinkReport

Figures = dict[str, Any]


def of_report(report: ShrinkReport) -> Figures:
    """Return the figures of a model that `layerimp shrink` made."""
    worst = report.retained and report.retained.worst
    return {
        "blocks": report.removed_share["blocks"],
        "parameters": report.removed_share["parameters"],
        **{name: [speed.factor, speed.factor_stderr] for name, speed in report.speeds.items()},
        "retained": worst and [worst.mean, worst.stderr],
        **of_fidelity(report.fidelity),
    }


def of_fidelity(fidelity: Fidelity | None) -> Figures:
    """Return the figures of a fidelity; copying is a share of the intact model's, None if that copies nothing."""
    if fidelity is None:
        return {}
    divergence, copying = fidelity.divergence, fidelity.copying
    return {
        "divergence": divergence and [divergence.mean, divergence.stderr],
        "agreement": [fidelity.agreement, fidelity.agreement_stderr],
        "copying": [copying.accuracy / copying.intact, None] if copying and copying.intact else None,
    }
