"""Parameters are replaced only in the pruned model, and restored if the change does not help."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import tiny

import layerimp
from layerimp.errors import NonFiniteError, PluginError
from layerimp.healing import replace, trying
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare


def test_replacing_leaves_the_intact_model_and_keeps_ties() -> None:
    model = tiny("llama", tie_word_embeddings=True)
    before = {path: value.clone() for path, value in model.state_dict().items()}
    pruned = prepare(find_blocks(model), [1]).beside()
    untouched = pruned.model.layers[0].mlp.up_proj.weight
    replace(pruned, "model.embed_tokens.weight", 2 * pruned.model.embed_tokens.weight)
    assert pruned.lm_head.weight is pruned.model.embed_tokens.weight
    assert untouched is model.model.layers[0].mlp.up_proj.weight
    assert all(torch.equal(value, before[path]) for path, value in model.state_dict().items())
    with pytest.raises(PluginError, match="has no parameter"):
        replace(pruned, "model.layers.9.nothing", torch.zeros(1))
    with pytest.raises(PluginError, match="has the shape"):
        replace(pruned, "model.norm.weight", torch.zeros(1))
    with pytest.raises(NonFiniteError, match="holds a NaN"):
        replace(pruned, "model.norm.weight", torch.full((32,), torch.nan))


def test_values_are_rounded_to_the_stored_dtype(tmp_path: Any) -> None:
    tiny("llama", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    layerimp.testing.tiny_tokenizer().save_pretrained(tmp_path / "half")
    model, _ = layerimp.load(tmp_path / "half", dtype="float32")
    pruned = prepare(find_blocks(model), [1]).beside()
    replace(pruned, "model.norm.weight", torch.full((32,), 1 / 3))
    assert pruned.model.norm.weight.dtype == torch.float32
    assert torch.equal(pruned.model.norm.weight, torch.full((32,), 1 / 3).bfloat16().float())


def test_what_is_tried_is_put_back_unless_it_is_kept() -> None:
    model = tiny("llama")
    before = model.model.norm.weight
    with trying(model):
        replace(model, "model.norm.weight", 2 * before)
    assert model.model.norm.weight is before
    with trying(model) as keep:
        replace(model, "model.norm.weight", 2 * before)
        keep()
    assert torch.equal(model.model.norm.weight, 2 * before)
