"""Blocks and seams in one pass: each series is as it is alone, and what is left is scored as in the pruned model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layerimp_avss import AVSS
from layerimp_baselines import BlockInfluence, Depth, Perplexity, Random, Taylor
from layerimp_gbis import GBIS
from layerimp_lrp import LRP
from support.scored_by_hand import SILENT
from support.seam_scores import (
    EVERY,
    all_of,
    close,
    made,
    scored,
    text,
)
from support.stirred import stirred
from support.tiny import tiny
from torch import nn

import layerimp
from layerimp.registry.catalog import registry
from layerimp.scorer import Scorer
from layerimp.scoring.engine import measure
from layerimp.steps import Step, candidates
from layerimp.surgery.removal import pruned
from layerimp.sweep.cache import BlockCache
from layerimp.testing import BLOCKS, batch, padded_batch


@pytest.mark.parametrize(
    "architecture",
    ["llama", "bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "gemma3_text"))],
)
def test_both_series_in_one_pass_are_each_alone(architecture: str) -> None:
    model = tiny(architecture)
    stack = layerimp.find_blocks(model)
    both = measure(stack, text(), all_of(BLOCKS), beside=all_of(BLOCKS - 1))
    for label in EVERY:
        blocks = measure(stack, text(), {label: all_of(BLOCKS)[label]})[label]
        seams = measure(stack, text(), {}, beside={label: all_of(BLOCKS - 1)[label]})[label]
        assert both[label].blocks == [0, "0/1", 1, "1/2", 2, "2/3", 3]
        assert both[label].scores[::2] == blocks.scores
        assert both[label].scores[1::2] == seams.scores
        assert {name: values[::2] for name, values in both[label].columns.items()} == blocks.columns


@pytest.mark.parametrize(
    ("architecture", "removed"),
    [
        *(("llama", removed) for removed in (("1/2",), (2,), ("2/3", "1/2"))),
        ("bert", ("1/2",)),
        ("gemma3_text", ("0/1", 2)),
        *(
            pytest.param(name, removed, marks=pytest.mark.slow)
            for name, removed in (
                ("llama", ("0/1", 2)),
                ("bert", ("0/1", 2)),
                ("gpt2", ("1/2",)),
                ("gpt2", ("0/1", 2)),
                ("gemma3_text", ("1/2",)),
            )
        ),
    ],
    ids=str,
)
def test_what_is_left_is_scored_as_in_the_pruned_model(architecture: str, removed: tuple[Step, ...]) -> None:
    """Blocks of what is left are the blocks of the pruned model, and its seams are theirs.

    Except for `random`, whose numbers belong to the steps of the intact model.
    """
    model = tiny(architecture, dtype=torch.float64)
    stack, rest = layerimp.find_blocks(model), BLOCKS - len(removed)
    whole_blocks, whole_seams, short_blocks, short_seams = (
        {
            label: made(EVERY[label][0], count, EVERY[label][1])
            for label in EVERY
            if (rest > 2 or label != "angular") and label != "random"
        }
        for count in (rest, rest - 1, rest, rest - 1)
    )
    # Without labels a classifier's targets are its predictions, and those of the pruned model are others.
    labelled = [{**inputs, "labels": torch.zeros(len(inputs["input_ids"]), dtype=torch.long)} for inputs in text()]
    past = measure(stack, labelled, whole_blocks, beside=whole_seams, removed=removed)
    with pruned(model, list(removed)):
        expected = measure(layerimp.find_blocks(model), labelled, short_blocks, beside=short_seams)
    blocks, seams = candidates(removed, BLOCKS, "all")
    for label, importance in expected.items():
        assert past[label].blocks[::2] == blocks
        assert past[label].blocks[1::2] == seams
        close(past[label].scores, importance.scores)
        assert past[label].columns.keys() == importance.columns.keys()


def test_a_cache_changes_nothing() -> None:
    model = tiny("llama", num_hidden_layers=6)
    stack, batches = layerimp.find_blocks(model), [batch(3, 12), padded_batch((12, 5, 9), seed=1)]
    cache, runs = BlockCache(stack), []
    model.model.layers[0].mlp.register_forward_hook(
        lambda _m, args, _out: runs.append(1) if args[0].shape[:2] == (3, 12) else None
    )
    for label in ("angular", "perplexity", "gbis"):
        for removed in ((), (3,), (3, "4/5"), ("4/5",), ("4/5", "1/2")):
            blocks, seams = candidates(removed, 6, "all")
            results = []
            for kept in (None, cache):
                of_blocks, of_seams = ({label: all_of(len(series))[label]} for series in (blocks, seams))
                results.append(measure(stack, batches, of_blocks, beside=of_seams, removed=removed, cache=kept)[label])
            assert results[0] == results[1]
    runs.clear()
    of_blocks, of_seams = ({"b": BlockInfluence(count)} for count in (4, 3))
    measure(stack, batches, of_blocks, beside=of_seams, removed=("4/5", "1/2"), cache=cache)
    assert not runs  # block 0 is not computed: its output and its middle are known
    plain = measure(stack, batches, {"b": BlockInfluence(6)}, cache=BlockCache(stack))
    assert plain == measure(stack, batches, {"b": BlockInfluence(6)})


def test_seams_after_a_pass_of_blocks_alone() -> None:
    """A block that is stored without its middle is computed if the middle is read."""
    model = tiny("llama")
    stack, cache = layerimp.find_blocks(model), BlockCache(layerimp.find_blocks(model))
    measure(stack, text(), {"b": BlockInfluence(BLOCKS)}, cache=cache)
    results = measure(
        stack, text(), {"b": BlockInfluence(BLOCKS)}, beside={"b": BlockInfluence(BLOCKS - 1)}, cache=cache
    )
    assert results == {"b": scored(model, BlockInfluence)}


@pytest.mark.parametrize("architecture", SILENT)
@pytest.mark.parametrize("seam", [0, BLOCKS - 2])
def test_a_seam_that_adds_nothing_scores_least(architecture: str, seam: int) -> None:
    model = tiny(architecture, dtype=torch.float64)
    stack = layerimp.find_blocks(model)
    for index, path in ((seam + 1, SILENT[architecture][0]), (seam, SILENT[architecture][1])):
        for parameter in stack[index].get_submodule(path).parameters():
            nn.init.zeros_(parameter)
    scorers = {label: scorer for label, scorer in all_of(BLOCKS - 1).items() if scorer.identity_scores_least}
    assert len(scorers) == 7
    blocks = {label: all_of(BLOCKS)[label] for label in scorers}
    for label, importance in measure(stack, [padded_batch()], blocks, beside=scorers).items():
        scores = importance.scores[1::2]
        assert abs(scores[seam]) == min(map(abs, scores)), (label, scores)
        if label in ("perplexity", "cim", "gbis", "lrp", "taylor"):
            assert scores[seam] == 0, label


def test_notes_and_draws_name_seams() -> None:
    model = tiny("llama")
    avss = scored(model, AVSS, site="block_out", epsilon=1e-9)
    assert [note.split(":")[0] for note in avss.notes] == [
        "sparsity was floored at 1e-06 in 4 of 4 blocks (0, 1, 2, 3)",
        "seams",
        "seams",
    ]
    assert avss.notes[1] == "seams: a score is a share of all of these, and does not compare with others"
    assert "in 3 of 3 (0/1, 1/2, 2/3)" in avss.notes[2]
    random = scored(model, Random)
    assert random.scores[::2] == measure(layerimp.find_blocks(model), text(), {"r": Random(BLOCKS)})["r"].scores
    assert not set(random.scores[::2]) & set(random.scores[1::2])
    depth = scored(model, Depth)
    assert depth.weakest_first()[-2:] in (["2/3", 3], [3, "2/3"])


def test_the_python_interface_scores_seams() -> None:
    model = tiny("llama")
    results = layerimp.score(model, text(), ["block-influence", "perplexity"], cuts="all")
    assert results["perplexity"] == scored(model, Perplexity)
    assert results["block-influence"].blocks == [0, "0/1", 1, "1/2", 2, "2/3", 3]
    assert layerimp.score(tiny("llama", num_hidden_layers=1), text(), ["depth"], cuts="all")["depth"].blocks == [0]


@pytest.mark.parametrize("cls", [BlockInfluence, GBIS, Perplexity, Taylor, LRP])
def test_the_model_is_left_as_it_was(cls: type[Scorer]) -> None:
    model = tiny("llama").train()
    before = [set(vars(module)) for module in model.modules()]
    scored(model, cls, removed=("1/2",))
    assert [set(vars(module)) for module in model.modules()] == before
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bert", "bloom"])
@pytest.mark.parametrize("scorer", ["block-influence", "taylor", "perplexity", "gbis", "lrp"])
def test_past_a_seam_blocks_are_scored_as_without_it(name: str, scorer: str) -> None:
    """Only untouched blocks are scored, in the model without the seam."""
    if (name, scorer) == ("bert", "lrp"):
        pytest.skip("LRP refuses BERT")
    model, batches = stirred(name), [batch(2, 12), padded_batch((12, 5, 9), seed=1)]
    stack = layerimp.find_blocks(model)
    made: Any = registry().create("scorer", scorer, {}, BLOCKS - 2)
    importance = measure(stack, batches, {scorer: made}, removed=["1/2"])[scorer]
    assert importance.blocks == [0, 3]
    with pruned(model, ["1/2"]):
        short: Any = registry().create("scorer", scorer, {}, BLOCKS - 1)
        expected = measure(stack, batches, {scorer: short})[scorer]
    assert importance.scores == pytest.approx([expected.scores[0], expected.scores[2]], rel=1e-4)
