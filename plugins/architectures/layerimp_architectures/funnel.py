"""The sequence is pooled between groups of blocks, so the length of a block's input depends on its position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack

TYPES = frozenset({"funnel"})


def blocks(model: PreTrainedModel) -> BlockStack:
    """Refuse the model: its blocks cannot be removed.

    Raises:
        ModelError: always; the text says why.
    """
    raise ModelError(
        f"the blocks of {type(model).__name__} lie in groups with pooling between them, and those after the first read "
        "a shorter sequence; removing one is not defined"
    )
