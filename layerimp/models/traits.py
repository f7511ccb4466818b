"""Properties of a model: the longest row that it can read, and whether it is a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def longest_row(model: PreTrainedModel) -> int | None:
    """Return the number of tokens that a model has positions for; None if it has no limit."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    # Some encoders start their positions after the padding token's id.
    words = model.get_input_embeddings()
    embeddings = (m for m in model.modules() if isinstance(m, torch.nn.Embedding) and m is not words)
    tables = (table for table in embeddings if table.num_embeddings == positions)
    offsets = [table.padding_idx + 1 for table in tables if table.padding_idx is not None]
    return positions - max(offsets, default=0)


def classifies(model: PreTrainedModel) -> bool:
    """Whether a model predicts one of several labels, judged by its class name as in Transformers."""
    return type(model).__name__.endswith("ForSequenceClassification")
