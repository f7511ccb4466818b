"""What scores, prunes and heals where a recipe leaves it open: the recommended method, or the fast one."""

from __future__ import annotations

from typing import Any

from layerimp.defaults import BEST, FAST, PAPER_SCORERS, RECOMMENDED, SCORERS
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


def completed_grid(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a grid with scorers in place of the names `best` and `fast`.

    A grid pairs every scorer with every pruner. `best` brings a pruner of its own, unless the grid names pruners. Where
    it comes by default, it brings its healer as well, which heals all pruned models.

    Args:
        given: The fields that are given, by name, not yet validated.
    """
    scorers = _labelled(given.get("scorers", [BEST, *PAPER_SCORERS]))
    if not isinstance(scorers, dict):
        return given
    own = {} if "scorers" in given else {"healers": RECOMMENDED["healers"]}
    best = [label for label, spec in scorers.items() if isinstance(spec, dict) and spec.get("name") == BEST]
    real = dict(_real(label, spec) for label, spec in scorers.items())
    if best and "pruners" not in given:
        labels = [_real(label, scorers[label])[0] for label in best]
        own["own_pruners"] = dict.fromkeys(labels, RECOMMENDED["pruner"])
    return {**own, **given, "scorers": real}


def _real(label: str, spec: Any) -> tuple[str, Any]:
    """Return a scorer with its own name in place of `best` and `fast`, which serve as labels for nothing else."""
    if isinstance(spec, dict) and spec.get("name") in SCORERS:
        name = SCORERS[spec["name"]]
        return (name if label in SCORERS else label), {**spec, "name": name}
    return label, spec
