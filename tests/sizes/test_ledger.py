"""Sizes of pruned models by arithmetic equal those of checkpoints."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_footprint import Footprint
from safetensors import safe_open
from support.tiny import UNEVEN, tiny
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

import layerimp
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import remember_stored
from layerimp.models.sizing import ledger_of
from layerimp.sizes.ledger import Amounts, Ledger
from layerimp.surgery.removal import pruned
from layerimp.testing.tiny import WORDS


def stored(model: PreTrainedModel, directory: Path) -> tuple[int, int]:
    """The parameters and bytes of a checkpoint in several files, read from the files."""
    model.save_pretrained(directory, max_shard_size="40KB")
    numbers = size = 0
    for file in directory.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                tensor = opened.get_tensor(name)
                numbers, size = numbers + tensor.numel(), size + tensor.nbytes
    return numbers, size


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("gpt2", {}),
        ("gemma2", {}),
        pytest.param("opt", {}, marks=pytest.mark.slow),
        ("falcon", {}),
        pytest.param("mixtral", {}, marks=pytest.mark.slow),
        ("qwen3_moe", UNEVEN),
        pytest.param("gpt_oss", {}, marks=pytest.mark.slow),
        ("gpt_neo", {}),
        pytest.param("mistral", {"sliding_window": 8}, marks=pytest.mark.slow),
    ],
)
def test_arithmetic_is_what_a_checkpoint_holds(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = tiny(name, **changes)
    stack = layerimp.find_blocks(model)
    ledger = ledger_of(stack)
    removals: list[list[int]] = [[], [0], [1], [1, 2], [0, 1, 3]]
    for number, blocks in enumerate(removals):
        amounts = ledger.left(blocks)
        with pruned(model, blocks) as rest:
            measured = {
                metric.name: metric.value for metric in Footprint(Footprint.Config(repeats=1)).evaluate(rest, None)
            }
            assert (amounts.parameters, amounts.bytes) == stored(rest, tmp_path / str(number))
        assert amounts.parameters == measured["parameters"]
        assert amounts.bytes == measured["bytes"]
        assert amounts.cache == measured["kv_bytes_per_token"]


def test_bytes_are_those_that_are_stored_whatever_is_computed_in() -> None:
    model = tiny("llama", dtype=torch.bfloat16).float()
    remember_stored(model, torch.bfloat16)
    stack = layerimp.find_blocks(model)
    amounts = ledger_of(stack).left(())
    assert amounts.bytes == 2 * amounts.parameters
    assert amounts.cache == 2 * 4 * 2 * 2 * 8  # bytes of keys and values of 4 blocks, each of 2 heads of 8


def test_the_cache_of_an_encoder_and_a_decoder_is_not_known_by_block() -> None:
    """It holds states of both; to call it empty would be wrong."""
    size = {"d_model": 32, "vocab_size": len(WORDS), "max_position_embeddings": 64}
    halves = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("layers", 4), ("ffn_dim", 48), ("attention_heads", 4))
    }
    model = BartForConditionalGeneration(BartConfig(**size, **halves)).eval()
    assert math.isnan(ledger_of(find_blocks(model)).left(()).cache)


def test_a_parameter_of_two_blocks_goes_with_the_last_of_them() -> None:
    model = tiny("llama")
    stack = layerimp.find_blocks(model)
    stack[2].mlp.down_proj.weight = stack[1].mlp.down_proj.weight
    ledger = ledger_of(stack)
    whole = ledger.left(()).parameters
    block = sum(parameter.numel() for parameter in stack[0].parameters())
    shared = stack[1].mlp.down_proj.weight.numel()
    assert whole == sum(parameter.numel() for parameter in model.parameters())
    assert whole - ledger.left([1]).parameters == block - shared
    assert whole - ledger.left([1, 2]).parameters == 2 * block - shared


def by_hand(*blocks: int, outside: int = 10) -> Ledger:
    """A ledger of blocks with given numbers of parameters."""
    entries = [([index], Amounts(parameters)) for index, parameters in enumerate(blocks)]
    return Ledger.collected(len(blocks), [([], Amounts(outside)), *entries])


def test_no_removal_of_fewer_blocks_reaches_a_limit() -> None:
    ledger = by_hand(9, 4, 7, 10)
    blocks = range(4)
    for limit in range(10, 41):
        fits = [n for n in range(5) for gone in combinations(blocks, n) if ledger.left(gone).parameters <= limit]
        assert ledger.fewest("parameters", limit, blocks) == min(fits)


def test_the_least_that_can_be_left() -> None:
    ledger = by_hand(9, 4, 7, 10)
    assert ledger.least("parameters", (), ()).parameters == 10 + 4  # block 1
    assert ledger.least("parameters", (0, 3), ()).parameters == 10 + 9 + 10
    assert ledger.least("parameters", (), [1]).parameters == 10 + 7
