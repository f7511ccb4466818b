"""The plan of a cell, which needs a model only if the pruner asks for the scores of a partly pruned one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from layerimp.bench.cells import Cell, Result
from layerimp.errors import LayerimpError
from layerimp.pruner import Budget, Pruner, Scoring
from layerimp.registry.attribution import attributing, create
from layerimp.scorer import Importance


def as_importance(result: Result) -> Importance:
    """Make an importance from plain data, in which the lengths of windows are text."""
    parts = {name: result[name] for name in ("scores", "blocks", "columns", "notes")}
    return Importance(**parts, spans={int(length): scores for length, scores in result["spans"].items()})


class _NeedsModelError(LayerimpError):
    """A pruner asks for the scores of a partly pruned model."""


def planned(cell: Cell, first: Importance, rescore: Callable[[Pruner], Scoring]) -> Result:
    """Compute the plan of a cell.

    Args:
        cell: The cell.
        first: The importance of the blocks in the intact model.
        rescore: Returns the scoring of partly pruned models. It is called only if the pruner asks for them, and not
            while the pruner works, whom the model's loading would be attributed to.

    Raises:
        OptionError: no plan can meet the budget.
    """
    content = cell.content
    pruner = create("pruner", content["pruner"], content["options"])
    assert isinstance(pruner, Pruner)
    num_blocks = len(first.blocks)
    budget = Budget.exactly(content["count"], num_blocks, protect=content["protect"])

    def intact(removed: Sequence[int], among: Collection[int] | None = None) -> Importance:
        if removed:
            raise _NeedsModelError
        return first

    def plan(scoring: Scoring) -> Result:
        with attributing("pruner", content["pruner"], type(pruner)):
            return {"blocks": pruner.within_budget(scoring, budget).blocks}

    try:
        return plan(intact)
    except _NeedsModelError:
        return plan(rescore(pruner))
