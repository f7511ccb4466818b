"""What scores, prunes and heals where a recipe leaves it open: the recommended method, or the fast one."""

from __future__ import annotations

from typing import Any

from layerimp.defaults import BEST, FAST, RECOMMENDED, SCORERS
from layerimp.recipe.labels import by_label

_labelled = by_label("name")


def completed(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe with scorers in place of the names `best` and `fast`.

    `best` alone, or no scorer, stands for the whole recommended method. Its repair is a part of it: without a scorer,
    but with a pruner or without healers, `fast` is meant.

    Args:
        given: The fields that are given, by name, not yet validated.
    """
    other = "pruner" in given or ("healers" in given and not given["healers"])
    scorers = _labelled(given.get("scorers", [FAST if other else BEST]))
    if not isinstance(scorers, dict):
        return given
    method = {} if scorers.keys() != {BEST} else RECOMMENDED
    return {**method, **given, "scorers": dict(_real(label, spec) for label, spec in scorers.items())}


def _real(label: str, spec: Any) -> tuple[str, Any]:
    """Return a scorer with its own name in place of `best` and `fast`, which serve as labels for nothing else."""
    if isinstance(spec, dict) and spec.get("name") in SCORERS:
        name = SCORERS[spec["name"]]
        return (name if label in SCORERS else label), {**spec, "name": name}
    return label, spec
