"""One block runs repeatedly with the same weights, so there is no separate block to remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack

TYPES = frozenset({"albert"})


def blocks(model: PreTrainedModel) -> BlockStack:
    """Refuse the model: its blocks cannot be removed.

    Raises:
        ModelError: always; the text says why.
    """
    raise ModelError(
        f"all layers of {type(model).__name__} are one block that runs {model.config.num_hidden_layers} times; lower "
        "num_hidden_layers in its configuration instead"
    )
