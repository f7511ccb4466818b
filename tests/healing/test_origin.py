"""A pruned model that was loaded by itself shares with the intact one what no healer has changed."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from support.tiny import tiny

from layerimp.healing.origin import check_pair, share
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare


@pytest.mark.parametrize("removed", [[1], [1, 3]], ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_equal_is_in_memory_once(removed: Sequence[int], tied: bool) -> None:
    intact = find_blocks(tiny("llama", tie_word_embeddings=tied))
    pruned = find_blocks(copy.deepcopy(prepare(intact, removed).beside()))
    with torch.no_grad():
        pruned[0].mlp.down_proj.weight[0, 0] += 1
        pruned.model.model.norm.weight += 1
    before = {path: value.clone() for path, value in pruned.model.named_parameters(remove_duplicate=False)}
    share(intact, pruned, removed)
    after = dict(pruned.model.named_parameters(remove_duplicate=False))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[path], value) for path, value in after.items())
    theirs = set(map(id, intact.model.parameters()))
    own = {path for path, value in after.items() if id(value) not in theirs}
    assert own == {"model.layers.0.mlp.down_proj.weight", "model.norm.weight"}
    assert (after["lm_head.weight"] is after["model.embed_tokens.weight"]) is tied
    assert not check_pair(intact, pruned, removed)
