"""Two stacks take turns several times, so that a block is passed more than once and not in one order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack

TYPES = frozenset({"hrm_text"})


def blocks(model: PreTrainedModel) -> BlockStack:
    """None to remove.

    Raises:
        ModelError: always; says why.
    """
    raise ModelError(
        f"{type(model).__name__} has two stacks of blocks that take turns, and no single order of blocks; removing one "
        "is not defined"
    )
