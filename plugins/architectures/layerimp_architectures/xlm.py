"""A layer is not a module of its own: its parts are in separate lists, so hidden states cannot bypass the layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack

TYPES = frozenset({"xlm", "flaubert"})


def blocks(model: PreTrainedModel) -> BlockStack:
    """Refuse the model: its blocks cannot be removed.

    Raises:
        ModelError: always; the text says why.
    """
    raise ModelError(
        f"the layers of {type(model).__name__} are no modules of their own: attention, norms and MLPs lie in lists "
        "side by side; removing one is not supported"
    )
