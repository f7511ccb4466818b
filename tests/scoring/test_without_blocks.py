"""What is left without some blocks is scored as the pruned model is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import tiny

import layerimp
from layerimp.registry.catalog import registry
from layerimp.scorer import Scorer
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.sweep.cache import BlockCache
from layerimp.testing import BLOCKS, batch, padded_batch

SCORERS = ["avss-delta", "block-influence", "angular", "relative-magnitude", "gbis", "taylor", "perplexity", "cim"]
TEXT = [padded_batch((12, 5, 9)), batch(2, 7, seed=1)]


def made(count: int, *names: str) -> dict[str, Scorer]:
    """Fresh scorers for a number of blocks."""
    scorers: Any = {name: registry().create("scorer", name, {}, count) for name in names}
    return scorers


@pytest.mark.parametrize("removed", [(2,), (1, 2), (0, 3)], ids=str)
@pytest.mark.parametrize("architecture", ["llama", "bert", "gemma3_text", "gpt2"])
def test_what_is_left_is_scored_as_in_the_pruned_model(architecture: str, removed: tuple[int, ...]) -> None:
    model = tiny(architecture, dtype=torch.float64)
    stack, left = layerimp.find_blocks(model), BLOCKS - len(removed)
    # Without labels a classifier's targets are its predictions, and those of the pruned model are others.
    labelled = [{**inputs, "labels": torch.zeros(len(inputs["input_ids"]), dtype=torch.long)} for inputs in TEXT]
    bypassed = measure(stack, labelled, made(left, *SCORERS), removed=removed)
    with pruned(model, list(removed)):
        expected = measure(layerimp.find_blocks(model), labelled, made(left, *SCORERS))
    for label, importance in expected.items():
        assert bypassed[label].blocks == [block for block in range(BLOCKS) if block not in removed]
        assert bypassed[label].scores == pytest.approx(importance.scores, rel=1e-8, abs=1e-10)
        assert bypassed[label].columns.keys() == importance.columns.keys()


def test_a_cache_changes_nothing() -> None:
    """Also where a block comes back, so that outputs of later blocks are not those of the last pass."""
    model = tiny("llama", num_hidden_layers=6)
    stack, runs = layerimp.find_blocks(model), list[int]()
    cache = BlockCache(stack)
    model.model.layers[0].mlp.register_forward_hook(
        lambda _m, args, _out: runs.append(1) if args[0].shape[:2] == (2, 7) else None
    )
    for label in ("angular", "perplexity", "gbis", "block-influence"):
        for removed in ((), (3,), (3, 4), (4,), (4, 1), (5,)):
            scorings = [
                measure(stack, TEXT, made(6 - len(removed), label), removed=removed, cache=kept)
                for kept in (None, cache)
            ]
            assert scorings[0] == scorings[1]
    runs.clear()
    measure(stack, TEXT, made(5, "block-influence"), removed=(4,), cache=cache)
    assert not runs  # the output of block 0 is known
