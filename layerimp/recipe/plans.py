"""Files of plans, such as the `plan.json` of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from layerimp.component import Plain, versioned
from layerimp.errors import InputError, OptionError, first_problem, unknown_name
from layerimp.pruner import PrunePlan
from layerimp.recipe.reading import once_each

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path


class PlanFile(Plain):
    """The content of `plan.json`. `layerimp prune --plan` applies `plans`, and plans of baselines only by `--label`."""

    schema_version: Literal["layerimp.plans/2"] = versioned("layerimp.plans/2")
    plans: dict[str, PrunePlan]
    """The plans, by label."""
    baselines: dict[str, PrunePlan] = Field(default={}, exclude_if=lambda plans: not plans)
    """The plans of the baselines, by label."""

    @classmethod
    def of(cls, plans: Mapping[str, PrunePlan], baselines: Collection[str] = ()) -> PlanFile:
        """Make the content of a file.

        Args:
            plans: The plans, by label.
            baselines: The labels of baselines, whose plans are separate, since applying the file skips them.
        """
        apart = {label: plans[label] for label in baselines if label in plans}
        return cls(plans={label: plan for label, plan in plans.items() if label not in apart}, baselines=apart)


FILE, PLAN = (kind.model_fields["schema_version"].default for kind in (PlanFile, PrunePlan))
"""The versions of a file of plans and of a single plan."""


def read_plans(path: Path, labels: Sequence[str] | None = None, count: int | None = None) -> dict[str, PrunePlan]:
    """Read the plans of a file, by label: of a single plan, or of a whole `plan.json`.

    Args:
        path: The file.
        labels: The labels of the plans to use; all plans but those of baselines if there are none.
        count: How many blocks of each plan to use, from the first on; None for all.

    Raises:
        OptionError: there is no plan under a label, or a plan cannot be shortened to `count` blocks.
        InputError: the file cannot be read, is of another version, or does not hold plans.
    """
    plans, baselines = _all_plans(path)
    every = plans | baselines
    for label in labels or ():
        if label not in every:
            raise unknown_name("label", label, every, of=f"the plan {path}")
    chosen = {label: every[label] for label in labels or plans}
    return chosen if count is None else {label: plan.shortened(count) for label, plan in chosen.items()}


def _all_plans(path: Path) -> tuple[dict[str, PrunePlan], dict[str, PrunePlan]]:
    """Read all plans of a file, and those of its baselines.

    Raises:
        InputError: the file cannot be read, is of another version, or does not hold plans.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once_each)
    except IsADirectoryError:
        raise InputError(f"{path} is a directory; name the file of plans in it, such as {path / 'plan.json'}") from None
    except OSError as error:
        raise InputError(f"cannot read the plan {path}: {error.strerror}") from None
    except RecursionError:
        raise InputError(f"{path} is no plan: its lists lie too deep in each other") from None
    except ValueError as error:
        raise InputError(f"{path} is no plan: {error}") from None
    if isinstance(document, dict) and "plans" not in document and document.get("schema_version") != FILE:
        return {document.get("scorer") or "plan": _plan(f"{path}", document)}, {}
    _check_version(f"{path}", document, FILE)
    plans, baselines = document.get("plans"), document.get("baselines", {})
    if not isinstance(plans, dict) or not plans or not isinstance(baselines, dict):
        raise InputError(f"{path} is no plan: it holds no plans by label")
    read, beside = (
        {label: _plan(f"{path}, {label!r},", plan) for label, plan in part.items()} for part in (plans, baselines)
    )
    return read, beside


def _plan(place: str, document: Any) -> PrunePlan:
    _check_version(place, document, PLAN)
    try:
        return PrunePlan(**document)
    except ValidationError as error:
        raise InputError(f"{place} is no plan: {first_problem(error)}") from None
    except (OptionError, ValueError, TypeError) as error:
        raise InputError(f"{place} is no plan: {error}") from None


def _check_version(place: str, document: Any, known: str) -> None:
    """Refuse another version, and a document that is not an object."""
    if not isinstance(document, dict):
        raise InputError(f"{place} is no plan: it is not a JSON object")
    version = document.get("schema_version")
    if version != known:
        problem = "has no schema_version" if version is None else f"is of the version {version!r}"
        raise InputError(f"{place} {problem}; the versions that are read: {FILE}, {PLAN}")
