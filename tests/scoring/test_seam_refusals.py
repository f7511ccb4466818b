"""Seams that cannot be scored are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layerimp_avss import AVSS
from layerimp_baselines import BlockInfluence, Perplexity
from layerimp_gbis import GBIS
from support.seam_scores import (
    scored,
    text,
)
from support.tiny import ALL, PARALLEL, each_of, tiny
from torch import Tensor

import layerimp
from layerimp.errors import ModelError, OptionError
from layerimp.scorer import Scorer
from layerimp.scoring.engine import measure
from layerimp.testing import BLOCKS


@pytest.mark.parametrize("site", ["mlp_act", "attn_out", "mlp_out"])
def test_a_copy_of_a_block_s_score_is_refused(site: str) -> None:
    said = (
        f"scorer 'avss' cannot score seams: it reads {site} alone, the same for a seam as for a block beside it; site="
    )
    with pytest.raises(ModelError, match=said):
        scored(tiny("llama"), AVSS, site=site)


@pytest.mark.parametrize("architecture", each_of(sorted(PARALLEL)))
@pytest.mark.parametrize("cls", [BlockInfluence, GBIS, Perplexity])
def test_parallel_branches_have_no_seams(architecture: str, cls: type[Scorer]) -> None:
    assert architecture in ALL
    with pytest.raises(ModelError, match=r"cannot be divided into attention and MLP: the two are parallel branches$"):
        scored(tiny(architecture), cls)


def test_a_gradient_that_is_not_all_there_is_is_refused() -> None:
    """The MLP half reads a copy of the middle, and adds to the middle itself."""
    model = tiny("llama", dtype=torch.float64)
    for block in model.model.layers:

        def forward(x: Tensor, block: Any = block, **kwargs: Any) -> Tensor:
            middle = x + block.self_attn(hidden_states=block.input_layernorm(x), **kwargs)[0]
            return middle + block.mlp(block.post_attention_layernorm(middle.clone()))

        block.forward = forward
    assert scored(model, BlockInfluence) == scored(tiny("llama", dtype=torch.float64), BlockInfluence)
    with pytest.raises(ModelError, match=r"block 0 of LlamaForCausalLM cannot be told: the MLP adds to another tensor"):
        scored(model, GBIS)


def test_a_middle_that_is_overwritten_is_refused() -> None:
    model = tiny("llama", dtype=torch.float64)
    for block in model.model.layers:

        def forward(x: Tensor, block: Any = block, **kwargs: Any) -> Tensor:
            middle = x + block.self_attn(hidden_states=block.input_layernorm(x), **kwargs)[0]
            middle += block.mlp(block.post_attention_layernorm(middle))
            return middle

        block.forward = forward
    with pytest.raises(ModelError, match="writes into the hidden states between its attention and its MLP"):
        scored(model, BlockInfluence)


def test_wrong_numbers_are_refused() -> None:
    stack = layerimp.find_blocks(tiny("llama"))
    with pytest.raises(OptionError, match=r"scorer 'b' was made for 4 blocks; there are 3 \(seams\)"):
        measure(stack, text(), {"b": BlockInfluence(BLOCKS)}, beside={"b": BlockInfluence(BLOCKS)})
