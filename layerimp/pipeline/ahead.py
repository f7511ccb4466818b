"""Checks of amounts against the number of blocks, made before weights are read or anything is created."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from layerimp.errors import OptionError
from layerimp.models.configuration import blocks_stated, count_blocks
from layerimp.pipeline.resolve import default_ratio
from layerimp.pruner import Budget, PrunePlan
from layerimp.recipe import check_label

if TYPE_CHECKING:
    from layerimp.recipe import Permissions, Recipe


def budget_of(recipe: Recipe, num_blocks: int) -> Budget:
    """Return a recipe's budget for a model with `num_blocks` blocks.

    If the recipe names a size or a quality, this is the smallest budget that can follow from it.

    Raises:
        OptionError: no block or every block would be removed, or the fields of the recipe contradict each other.
    """
    if recipe.targets or recipe.keep is not None:
        return budget_for(recipe, max(1, len(recipe.blocks)), num_blocks)
    return Budget.of(
        num_blocks,
        ratio=default_ratio(recipe),
        count=recipe.count,
        blocks=recipe.blocks,
        protect=recipe.protect,
        cuts=recipe.cuts,
    )


def budget_for(recipe: Recipe, count: int, num_blocks: int) -> Budget:
    """Return a recipe's budget for removing `count` steps from a model with `num_blocks` blocks.

    Raises:
        OptionError: no block or every block would be removed, or the fields of the recipe contradict each other.
    """
    return Budget.exactly(count, num_blocks, protect=recipe.protect, forced=recipe.blocks, cuts=recipe.cuts)


def check_plans(plans: Mapping[str, PrunePlan], num_blocks: int) -> None:
    """Refuse plans that remove nothing, that are for another number of blocks, or whose labels are none.

    Raises:
        OptionError: a plan removes nothing, is for another number of blocks, or has a label that is not allowed; or
            there is no plan at all.
    """
    if not plans:
        raise OptionError("there is no plan in the file")
    for label, plan in plans.items():
        check_label(label)
        if not plan.blocks:
            raise OptionError(f"plan {label!r} removes nothing")
        if plan.num_blocks != num_blocks:
            raise OptionError(f"plan {label!r} is for {plan.num_blocks} blocks; the model has {num_blocks}")


def check_ahead(model: str, permissions: Permissions, check: Callable[[int], object]) -> None:
    """Run a check on a model's number of blocks, without reading its weights.

    The configuration states a number, which is cheap to read. If the check refuses that number, the blocks are counted.

    Args:
        model: The model.
        permissions: Which code that came with data may run.
        check: Called with the number of blocks; raises an `OptionError` if something contradicts that number.

    Raises:
        ModelError: the configuration cannot be read.
        OptionError: the check refuses the number of blocks.
    """
    trusted = permissions.trust_remote_code
    stated = blocks_stated(model, trust_remote_code=trusted)
    try:
        if stated is not None:
            check(stated)
            return
    except OptionError:
        pass
    if (counted := count_blocks(model, trust_remote_code=trusted)) is not None:
        check(counted)
