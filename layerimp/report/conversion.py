"""Converts plans to documents."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from layerimp.report.documents import Plan, PlanFile
from layerimp.report.json_types import Number

if TYPE_CHECKING:
    from layerimp.pruner import PrunePlan


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
