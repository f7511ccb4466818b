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
    """Scorers: importance metrics.

    Returns:
        The scorer classes of this plugin.
    """
    raise NotImplementedError


@hookspec
def layerimp_pruners() -> list[type[Pruner]]:
    """Pruners: ways to choose the blocks that go.

    Returns:
        The pruner classes of this plugin.
    """
    raise NotImplementedError


@hookspec
def layerimp_healers() -> list[type[Healer]]:
    """Healers: ways to repair what is left of a pruned model.

    Returns:
        The healer classes of this plugin.
    """
    raise NotImplementedError


@hookspec
def layerimp_evaluators() -> list[type[Evaluator]]:
    """Evaluators: ways to measure a model before and after.

    Returns:
        The evaluator classes of this plugin.
    """
    raise NotImplementedError


@hookspec
def layerimp_assets() -> Assets:
    """Models, calibration texts and evaluation tasks that come with a plugin, for use by name.

    Returns:
        Where they lie.
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def layerimp_blocks(model: PreTrainedModel) -> BlockStack | None:
    """Find the stack of blocks in an architecture that the generic finder does not understand.

    Args:
        model: The loaded model.

    Returns:
        Its stack, or None to leave the model to the next plugin and at last to the generic finder.
    """
    raise NotImplementedError
