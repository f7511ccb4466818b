"""What the generic finder of blocks cannot know: one file per family, each with its reason in the first line."""

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
    """The blocks of a model of one of these families."""
    for family in FAMILIES:
        if model.config.model_type in family.TYPES:
            found: BlockStack | None = family.blocks(model)
            return found
    return None
