"""Passes that start where something changed: nothing is computed twice, and results are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_baselines import Angular, BlockInfluence, Perplexity
from layerimp_cim import CIM, CIMConfig
from support.tiny import tiny
from transformers.models.llama.modeling_llama import LlamaMLP

import layerimp
import layerimp.sweep.cache
from layerimp.indices import kept_blocks
from layerimp.pipeline.commands import prune_model
from layerimp.recipe import Recipe
from layerimp.registry.catalog import registry
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import measure
from layerimp.sweep.cache import BlockCache
from layerimp.testing import batch, padded_batch

BLOCKS = 6
REMOVALS = ((), (3,), (3, 5), (3, 5, 4), (1, 3, 5))
FROM = (0, 3, 5, 4, 1)
"""Where each of these first differs from the one before it."""


def scorers(num_blocks: int) -> dict[str, Scorer]:
    return {
        "block-influence": BlockInfluence(num_blocks),
        "angular": Angular(num_blocks, Angular.Config(window=2)),
        "perplexity": Perplexity(num_blocks),
        "cim": CIM(num_blocks, CIMConfig(probes=("mean",))),
    }


class Count:
    """How many blocks ran on a batch of three rows."""

    def __init__(self, model: Any) -> None:
        self.blocks = 0
        for block in model.model.layers:
            block.mlp.register_forward_hook(self._count)

    def _count(self, _module: Any, args: Any, _output: Any) -> None:
        self.blocks += len(args[0]) == 3

    def read(self) -> int:
        blocks, self.blocks = self.blocks, 0
        return blocks


def importance(model: Any, name: str, removed: tuple[int, ...], cache: BlockCache | None = None) -> Importance:
    scorer = scorers(len(kept_blocks(removed, BLOCKS)))[name]
    batches = [batch(3, 12), padded_batch((12, 5, 9), seed=1)]
    return measure(layerimp.find_blocks(model), batches, {name: scorer}, removed=removed, cache=cache)[name]


@pytest.mark.parametrize("name", scorers(BLOCKS))
def test_only_what_changed_is_computed(name: str) -> None:
    model = tiny("llama", num_hidden_layers=BLOCKS)
    cache, count = BlockCache(layerimp.find_blocks(model)), Count(model)
    for removed, start in zip(REMOVALS, FROM, strict=True):
        expected = importance(model, name, removed)
        plain = count.read()
        assert importance(model, name, removed, cache) == expected
        kept = [block for block in range(BLOCKS) if block not in removed]
        saved = sum(block < start for block in kept)
        again = len(kept) if name == "cim" else 0  # its pass for the mean and its own are one now
        # A forward pass without a cache runs bypassed blocks in every batch, with one only in the first.
        idle = len(removed) if name in ("block-influence", "angular") else 0
        assert count.read() == plain - 2 * (saved + again) - idle


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", num_hidden_layers=BLOCKS)
    size = batch(3, 12)["input_ids"].numel() * 32 * 4
    for room, known in ((0, 0), (size - 1, 0), (size, 1), (7 * size, 7), (99 * size, 12)):
        monkeypatch.setattr(layerimp.sweep.cache, "LIMIT", room)
        cache, count = BlockCache(layerimp.find_blocks(model)), Count(model)
        importance(model, "block-influence", (), cache)
        count.read()
        assert importance(model, "block-influence", (), cache) == importance(model, "block-influence", ())
        assert count.read() == 4 * BLOCKS - known


def test_room_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", num_hidden_layers=BLOCKS)
    size = batch(3, 12)["input_ids"].numel() * 32 * 4
    monkeypatch.setattr(layerimp.sweep.cache, "LIMIT", 12 * size)
    cache, count = BlockCache(layerimp.find_blocks(model)), Count(model)
    for removed in ((), (0,), (), (0,), ()):
        importance(model, "block-influence", removed, cache)
    count.read()
    importance(model, "block-influence", (), cache)
    assert count.read() == 0


def test_sites_inside_blocks_are_computed() -> None:
    model = tiny("llama", num_hidden_layers=BLOCKS)
    stack, batches = layerimp.find_blocks(model), [batch(3, 12)]
    cache = BlockCache(stack)
    importance(model, "block-influence", (), cache)
    made = registry().get("scorer", "avss")
    assert measure(stack, batches, {"a": made(BLOCKS)}, cache=cache) == measure(stack, batches, {"a": made(BLOCKS)})


def test_nothing_is_left_behind() -> None:
    model = tiny("llama", num_hidden_layers=BLOCKS)
    before = [set(vars(module)) for module in model.modules()]
    cache = BlockCache(layerimp.find_blocks(model))
    for removed in REMOVALS:
        importance(model, "perplexity", removed, cache)
    assert [set(vars(module)) for module in model.modules()] == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_that_cannot_be_run_apart_is_run_whole() -> None:
    """Every block adds what the first one saw, which no later block is given."""
    model = tiny("llama", num_hidden_layers=BLOCKS)
    seen: dict[str, torch.Tensor] = {}
    first, last = model.model.layers[0].mlp, model.model.layers[-1].mlp
    for module, change in ((first, lambda x: seen.__setitem__("x", x)), (last, lambda x: x)):
        own = module.forward
        module.forward = lambda x, own=own, change=change: (change(x), own(x) + seen["x"].mean())[1]
    expected = [importance(model, "block-influence", removed) for removed in REMOVALS]
    seen.clear()
    cache = BlockCache(layerimp.find_blocks(model))
    assert [importance(model, "block-influence", removed, cache) for removed in REMOVALS] == expected


@pytest.mark.parametrize("scorer", ["block-influence", "perplexity"])
def test_a_greedy_run_computes_less_and_plans_the_same(
    scorer: str, model_dir: Path, calibration_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    own = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: (calls.append(x.shape[0]), own(self, x))[1])
    recipe = Recipe(
        model=str(model_dir),
        calibration={"source": str(calibration_file), "samples": 16, "max_length": 16},
        scorers={scorer: {"name": scorer}},
        pruner={"name": "greedy"},
        ratio=0.75,
        verify=False,
    )
    runs = []
    for limit in (0, 1 << 30):
        monkeypatch.setattr(layerimp.sweep.cache, "LIMIT", limit)
        calls.clear()
        output = tmp_path / str(limit)
        plan = prune_model(recipe.model_copy(update={"output": output})).model.plans[scorer]
        runs.append((plan.blocks, calls.count(8)))  # batches of text, and not of a few tokens to try
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] > runs[1][1]
