"""Model families that the generic search for blocks cannot handle: one file per family, with the reason on top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerimp import hookimpl
from layerimp_architectures import albert, funnel, hrm_text, xlm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack

FAMILIES: tuple[Any, ...] = (albert, funnel, hrm_text, xlm)


@hookimpl
def layerimp_blocks(model: PreTrainedModel) -> BlockStack | None:
    """Return the blocks of a model of one of these families; None for other models.

    Raises:
        ModelError: the blocks of the model cannot be removed.
    """
    for family in FAMILIES:
        if model.config.model_type in family.TYPES:
            stack: BlockStack | None = family.blocks(model)
            return stack
    return None
