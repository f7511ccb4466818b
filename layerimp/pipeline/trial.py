"""What a pruner has scored, by a trial with equal scores."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, product
from typing import TYPE_CHECKING

from layerimp.errors import ModelError, PluginError
from layerimp.registry.attribution import attributing
from layerimp.scorer import Importance
from layerimp.steps import candidates, simplest, sublayers_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from layerimp.pruner import Budget, Pruner
    from layerimp.scoring.selection import Selection
    from layerimp.steps import Cuts, Step

    Asked = set[tuple[tuple[Step, ...], frozenset[Step]]]


def trial(pruner: Pruner, cuts: Cuts, budget: Budget) -> Asked:
    """Find out what a pruner asks for, by a trial with equal scores.

    Returns:
        For each scoring, the removed and the scored steps.

    Raises:
        OptionError: the pruner cannot keep to the budget.
    """
    asked: Asked = set()

    def scoring(removed: Sequence[Step], among: Collection[Step] | None = None) -> Importance:
        every = sorted(chain(*candidates(removed, budget.num_blocks, cuts)), key=sublayers_of)
        steps = [step for step in every if among is None or step in among]
        asked.add((tuple(simplest(removed)), frozenset(steps)))
        return Importance([0.0] * len(steps), steps)

    pruner.within_budget(scoring, budget)
    return asked


def check_rescoring(pruner: Pruner, selection: Selection, budget: Budget, cuts: Cuts) -> None:
    """Refuse scorers whose options do not fit the partly pruned models that a pruner has scored.

    Raises:
        OptionError: an option of a scorer needs more blocks, or the pruner cannot keep to the budget.
    """
    asked: Asked = set()
    with suppress(PluginError), attributing("pruner", pruner.name, type(pruner)):  # reported when it plans
        asked = trial(pruner, cuts, budget)
    for (removed, _), label in product(asked, selection.specs):
        with suppress(ModelError, PluginError):  # reported when the model is scored
            selection.create(cuts, budget.num_blocks, label, removed=removed)
