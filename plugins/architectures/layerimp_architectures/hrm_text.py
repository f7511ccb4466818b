"""Two stacks of blocks alternate several times, so each block runs more than once, and in no fixed order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack

TYPES = frozenset({"hrm_text"})


def blocks(model: PreTrainedModel) -> BlockStack:
    """Refuse the model: its blocks cannot be removed.

    Raises:
        ModelError: always; the text says why.
    """
    raise ModelError(
        f"{type(model).__name__} has two stacks of blocks that take turns, and no single order of blocks; removing one "
        "is not defined"
    )
