"""Converts repairs and plans to documents."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from layerimp.report.documents import Plan, PlanFile
from layerimp.report.json_types import Number
from layerimp.report.results.models import Repaired, RepairedGap

if TYPE_CHECKING:
    from layerimp.healer import Repair
    from layerimp.pruner import PrunePlan


def repaired(
    repairs: Sequence[Repair], loss: Mapping[str, float], accuracy: Mapping[str, float], recovered: float | None
) -> Repaired:
    """Convert what a healer did, and the effect of healing."""
    return Repaired(
        gaps=[
            RepairedGap(gap=str(one.gap), removed=one.gap.steps, done=one.done, why=one.why, numbers=dict(one.numbers))
            for one in repairs
        ],
        loss=dict(loss),
        accuracy=dict(accuracy) or None,
        recovered=recovered,
    )


def plan(made: PrunePlan) -> Plan:
    """Convert a plan."""
    return {
        "schema_version": "layerimp.plan/2",
        "num_blocks": made.num_blocks,
        "blocks": made.blocks,
        "reason": made.reason,
        "scorer": made.scorer,
        "pruner": made.pruner,
        "model": made.model,
        "nested": made.nested,
    }


def plan_file(plans: Mapping[str, PrunePlan], baselines: Collection[str] = ()) -> PlanFile:
    """Make the content of a file of plans. Those of baselines are separate, since applying the file skips them."""
    written = {label: plan(made) for label, made in plans.items()}
    apart = {label: written.pop(label) for label in baselines if label in written}
    file: PlanFile = {"schema_version": "layerimp.plans/2", "plans": written}
    if apart:
        file["baselines"] = apart
    return file


def finite(value: float | None) -> Number:
    """Return a number that JSON can hold: an infinite perplexity becomes null."""
    return value if value is not None and math.isfinite(value) else None
