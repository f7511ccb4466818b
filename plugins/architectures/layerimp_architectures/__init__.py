"""Model families whose blocks cannot be removed, which the generic search for blocks could not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp import hookimpl
from layerimp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack

_LISTS = (
    "the layers of {kind} are no modules of their own: attention, norms and MLPs lie in lists side by side; removing "
    "one is not supported"
)
REASONS = {
    "albert": "all layers of {kind} are one block that runs {layers} times; lower num_hidden_layers in its "
    "configuration instead",
    "flaubert": _LISTS,
    "funnel": "the blocks of {kind} lie in groups with pooling between them, and those after the first read a shorter "
    "sequence; removing one is not defined",
    "hrm_text": "{kind} has two stacks of blocks that take turns, and no single order of blocks; removing one is not "
    "defined",
    "xlm": _LISTS,
}
"""Why no block can be removed, by model type."""


@hookimpl
def layerimp_blocks(model: PreTrainedModel) -> BlockStack | None:
    """Refuse the models of these families; return None for other models.

    Raises:
        ModelError: the blocks of the model cannot be removed.
    """
    if reason := REASONS.get(model.config.model_type):
        layers = getattr(model.config, "num_hidden_layers", None)
        raise ModelError(reason.format(kind=type(model).__name__, layers=layers))
    return None
