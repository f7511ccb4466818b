"""A NaN or an infinity in a model is reported before the model is used or copied."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import tiny
from transformers import Mamba2Config

import layerimp
from layerimp.errors import NonFiniteError
from layerimp.models.unsupported import refuse_config
from layerimp.testing import batch


def scored(model: Any, _directory: Path) -> object:
    return layerimp.score(model, [batch()], ["block-influence"])


def pruned(model: Any, _directory: Path) -> object:
    return layerimp.prune(model, [1])


def saved(model: Any, directory: Path) -> object:
    return layerimp.save(model, None, directory / "out", verify=False)


@pytest.mark.parametrize("use", [scored, pruned, saved])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.layers.0.mlp.down_proj.weight", math.nan),
        ("model.embed_tokens.weight", math.inf),
        ("model.norm.weight", math.nan),
        ("lm_head.weight", -math.inf),
    ],
)
def test_a_weight_is_named(use: Callable[[Any, Path], object], path: str, value: float, tmp_path: Path) -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.get_parameter(path).view(-1)[-1] = value
    with pytest.raises(NonFiniteError, match=f"LlamaForCausalLM holds a NaN or an infinity in its weights: in {path}$"):
        use(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_largest_numbers_of_a_dtype_are_finite(dtype: torch.dtype) -> None:
    model = tiny("llama").to(dtype)
    with torch.no_grad():
        model.lm_head.weight[0] = torch.finfo(dtype).max
        model.lm_head.weight[1] = torch.finfo(dtype).min
    layerimp.find_blocks(model)
    with torch.no_grad():
        model.lm_head.weight[2, 3] = torch.nan
        model.model.norm.weight[0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"in 2 tensors, the first is model\.norm\.weight"):
        layerimp.find_blocks(model)


def test_a_mask_may_hold_infinities() -> None:
    model = tiny("llama")
    model.register_buffer("bias", torch.tensor([0.0, -math.inf]))
    layerimp.find_blocks(model)
    model.bias[0] = math.nan
    with pytest.raises(NonFiniteError, match="in its weights: in bias"):
        layerimp.find_blocks(model)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rms_norm_eps": math.nan}, "says rms_norm_eps nan"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": math.inf}}, "says rope_parameters.rope_theta inf"),
        ({"extra": [1.0, math.nan]}, "says extra.1 nan"),
    ],
)
def test_a_field_is_named(fields: dict[str, Any], said: str) -> None:
    model = tiny("llama")
    vars(model.config).update(fields)
    with pytest.raises(NonFiniteError, match=f"the configuration of LlamaForCausalLM {said}, which must be a finite"):
        layerimp.find_blocks(model)


def test_no_bound_is_an_infinity() -> None:
    config = Mamba2Config()
    assert math.inf in config.time_step_limit
    refuse_config(config, "Mamba2")


def test_what_overflows_does_not_depend_on_its_position(tmp_path: Path) -> None:
    model = tiny("llama")
    model.model.norm.register_forward_hook(lambda _m, _a, out: out * torch.inf)
    with pytest.raises(NonFiniteError, match="LlamaForCausalLM past block 1 puts out a NaN or an infinity"):
        layerimp.prune(model, [1])
    with pytest.raises(NonFiniteError, match="LlamaForCausalLM puts out a NaN or an infinity on a few tokens"):
        layerimp.save(model, None, tmp_path / "out")
