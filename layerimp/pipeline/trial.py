"""What a pruner has scored, by a trial with equal scores."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING

from layerimp.errors import ModelError, PluginError
from layerimp.registry.attribution import attributing
from layerimp.scorer import Importance
from layerimp.scoring.engine import scored_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from layerimp.pruner import Budget, Pruner
    from layerimp.scoring.selection import Selection

    Asked = set[tuple[tuple[int, ...], frozenset[int]]]


def trial(pruner: Pruner, budget: Budget) -> Asked:
    """Find out what a pruner asks for, by a trial with equal scores.

    Returns:
        For each scoring, the removed and the scored blocks.

    Raises:
        OptionError: the pruner cannot keep to the budget.
    """
    asked: Asked = set()

    def scoring(removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        blocks = scored_blocks(removed, budget.num_blocks, among)
        asked.add((tuple(sorted(removed)), frozenset(blocks)))
        return Importance([0.0] * len(blocks), blocks)

    pruner.within_budget(scoring, budget)
    return asked


def check_rescoring(pruner: Pruner, selection: Selection, budget: Budget) -> None:
    """Refuse scorers whose options do not fit the partly pruned models that a pruner has scored.

    Raises:
        OptionError: an option of a scorer needs more blocks, or the pruner cannot keep to the budget.
    """
    asked: Asked = set()
    with suppress(PluginError), attributing("pruner", pruner.name, type(pruner)):  # reported when it plans
        asked = trial(pruner, budget)
    for (removed, _), label in product(asked, selection.specs):
        with suppress(ModelError, PluginError):  # reported when the model is scored
            selection.create(budget.num_blocks, label, removed=removed)
