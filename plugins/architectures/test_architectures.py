"""Families whose blocks cannot be removed are refused, each with its reason."""

from __future__ import annotations

import layerimp_architectures
import pytest
from transformers import AlbertConfig, AlbertModel, FlaubertConfig, FlaubertModel, FunnelConfig, FunnelModel

import layerimp
from layerimp.errors import ModelError

ALBERT = AlbertConfig(
    vocab_size=99, embedding_size=16, hidden_size=32, num_hidden_layers=5, num_attention_heads=4, intermediate_size=64
)
FUNNEL = FunnelConfig(vocab_size=99, block_sizes=[2, 2], d_model=32, n_head=4, d_head=8, d_inner=64)
FLAUBERT = FlaubertConfig(vocab_size=99, emb_dim=32, n_layers=3, n_heads=4)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (AlbertModel(ALBERT), "AlbertModel are one block that runs 5 times; lower num_hidden_layers"),
        (FunnelModel(FUNNEL), "groups with pooling between them"),
        (FlaubertModel(FLAUBERT), "lists side by side"),
    ],
)
def test_a_family_is_refused_with_its_reason(model: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        layerimp.find_blocks(model)


def test_other_models_are_left_to_the_next() -> None:
    config = type("Config", (), {"model_type": "llama"})()
    assert layerimp_architectures.layerimp_blocks(type("Model", (), {"config": config})()) is None
