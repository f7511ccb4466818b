"""The hooks through which everything is plugged in: six functions, each optional.

A plugin is a module (or an object) that is named by an entry point in the group `layerimp` and holds
functions of these names, marked with `layerimp.hookimpl`:

    from layerimp import hookimpl

    @hookimpl
    def layerimp_scorers():
        return [MyScorer]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.assets import Assets
    from layerimp.blocks.stack import BlockStack
    from layerimp.evaluator import Evaluator
    from layerimp.healer import Healer
    from layerimp.pruner import Pruner
    from layerimp.scorer import Scorer

PROJECT = "layerimp"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def layerimp_scorers() -> list[type[Scorer]]:
    """Return the scorers of this plugin: importance metrics.

    Returns:
        The scorer classes.
    """
    raise NotImplementedError


@hookspec
def layerimp_pruners() -> list[type[Pruner]]:
    """Return the pruners of this plugin: ways to choose the blocks to remove.

    Returns:
        The pruner classes.
    """
    raise NotImplementedError


@hookspec
def layerimp_healers() -> list[type[Healer]]:
    """Return the healers of this plugin: ways to repair a pruned model.

    Returns:
        The healer classes.
    """
    raise NotImplementedError


@hookspec
def layerimp_evaluators() -> list[type[Evaluator]]:
    """Return the evaluators of this plugin: ways to measure a model before and after pruning, and comparers.

    Returns:
        The evaluator classes.
    """
    raise NotImplementedError


@hookspec
def layerimp_assets() -> Assets:
    """Return the models, calibration texts and evaluation tasks that come with this plugin, for use by name.

    Returns:
        The names, with the paths of the files.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def layerimp_blocks(model: PreTrainedModel) -> BlockStack | None:
    """Find the stack of blocks in an architecture that the generic finder does not understand.

    Args:
        model: The loaded model.

    Returns:
        The model's stack, or None. If every plugin returns None, the generic finder is used.
    """
    raise NotImplementedError
