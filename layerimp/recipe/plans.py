"""Reads the plans of a file, such as the `plan.json` of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from layerimp.errors import InputError, OptionError, first_problem, unknown_name
from layerimp.pruner import PrunePlan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILES = ("layerimp.plans/1", "layerimp.plans/2")
PLANS = ("layerimp.plan/1", "layerimp.plan/2")
"""The versions that can be read."""


def read_plans(path: Path, labels: Sequence[str] | None = None, count: int | None = None) -> dict[str, PrunePlan]:
    """Read the plans of a file, by label: of a single plan, or of a whole `plan.json` without its baselines.

    Args:
        path: The file.
        labels: The labels of the plans to use; all plans if there are none.
        count: How many steps of each plan to use, from the first on; None for all.

    Raises:
        OptionError: there is no plan under a label, or a plan cannot be shortened to `count` steps.
        InputError: the file cannot be read, is of another version, or does not hold plans.
    """
    plans = _all_plans(path)
    for label in labels or ():
        if label not in plans:
            raise unknown_name("label", label, plans, of=f"the plan {path}")
    chosen = {label: plans[label] for label in labels or plans}
    return chosen if count is None else {label: one.shortened(count) for label, one in chosen.items()}


def _all_plans(path: Path) -> dict[str, PrunePlan]:
    """Read all plans of a file.

    Raises:
        InputError: the file cannot be read, is of another version, or does not hold plans.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once_each)
        if not isinstance(document, dict):
            raise TypeError("it is not a JSON object")
        if "plans" not in document:
            if document.get("schema_version") in FILES:
                raise TypeError("it holds no plans")
            return {document.get("scorer") or "plan": _plan(path, document)}
        _check_version(path, document, FILES)
        return {label: _plan(path, plan) for label, plan in document["plans"].items()}
    except OSError as error:
        raise InputError(f"cannot read the plan {path}: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{path} is no plan: {first_problem(error)}") from None
    except (OptionError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no plan: {error}") from None


def _plan(path: Path, document: Any) -> PrunePlan:
    _check_version(path, document, PLANS)
    return PrunePlan(**document)


def _check_version(path: Path, document: Any, known: tuple[str, ...]) -> None:
    """Refuse an unknown version."""
    version = document.get("schema_version")
    if version not in known:
        found = "has no schema_version" if version is None else f"is of the version {version!r}"
        raise InputError(f"{path} {found}; the versions that are read: {', '.join((*FILES, *PLANS))}")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object, and refuse duplicate keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found
