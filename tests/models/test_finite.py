"""A NaN or an infinity in a model is reported before the model is used or copied."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import tiny
from support.weight_reads import WeightReads
from torch import nn
from transformers import Mamba2Config

import layerimp
from layerimp.errors import NonFiniteError
from layerimp.models import unsupported
from layerimp.models.unsupported import refuse_config
from layerimp.surgery.removal import in_float32, prepare
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


def a_number(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight[3, 4] = math.nan


def a_number_in_inference_mode(model: Any) -> None:
    with torch.inference_mode():
        model.lm_head.weight[3, 4] = math.nan


def a_view(model: Any) -> None:
    model.lm_head.weight.detach()[3].fill_(math.nan)


def an_optimizer(model: Any) -> None:
    model.lm_head.weight.grad = torch.full_like(model.lm_head.weight, math.inf)
    torch.optim.AdamW([model.lm_head.weight]).step()


def a_state(model: Any) -> None:
    model.load_state_dict({**model.state_dict(), "lm_head.weight": torch.full_like(model.lm_head.weight, math.nan)})


def another_parameter(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(torch.full_like(model.lm_head.weight, math.nan))


def other_values(model: Any) -> None:
    for value in (0.0, math.nan):  # the second may lie where the first ones lay
        model.lm_head.weight.data = torch.full_like(model.lm_head.weight, value)


def a_narrower_dtype(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight[3, 4] = 1e5
    layerimp.find_blocks(model)
    model.half()


def a_wider_module(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.lm_head)
    layerimp.find_blocks(model)
    with torch.no_grad():
        model.lm_head.parametrizations.weight.original1[3, 4] = math.nan


CHANGES = (a_number, a_number_in_inference_mode, a_view, an_optimizer, a_state, another_parameter, other_values)
CHANGES += (a_narrower_dtype, a_wider_module)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_weight_that_was_changed_is_looked_at_again(change: Callable[[Any], None]) -> None:
    model = tiny("llama")
    layerimp.find_blocks(model)
    change(model)
    for _ in range(2):  # what did not pass is not remembered
        with pytest.raises(NonFiniteError, match=r"in its weights: in lm_head\."):
            layerimp.find_blocks(model)


def test_a_tensor_that_counts_no_writes_is_always_looked_at() -> None:
    model = tiny("llama")
    with torch.inference_mode():
        model.lm_head.weight = nn.Parameter(torch.ones_like(model.lm_head.weight))
        layerimp.find_blocks(model)
        model.lm_head.weight[3, 4] = math.nan
    with pytest.raises(NonFiniteError, match=r"in lm_head\.weight"):
        layerimp.find_blocks(model)


def test_a_parameter_passes_another_test_than_a_mask() -> None:
    model = tiny("llama")
    shared = nn.Parameter(torch.tensor([0.0, -math.inf]), requires_grad=False)
    model.model.register_buffer("bias", shared)
    layerimp.find_blocks(model)
    model.scale = shared
    with pytest.raises(NonFiniteError, match="in scale"):
        layerimp.find_blocks(model)


def test_a_tree_that_shares_tensors_is_not_looked_at() -> None:
    stack = layerimp.find_blocks(tiny("llama"))
    beside = prepare(stack, [1]).beside()
    with WeightReads(beside) as reads:
        layerimp.find_blocks(beside)
    assert not reads.by_path
    with WeightReads(twin := copy.deepcopy(beside)) as reads:
        layerimp.find_blocks(twin)
    assert set(reads.by_path) == {path for path, _ in twin.named_parameters()}


def test_weights_that_were_in_another_dtype_for_a_while_are_not_looked_at() -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    layerimp.find_blocks(model)
    with in_float32(model):
        assert model.dtype == torch.float32
    with WeightReads(model) as reads:
        layerimp.find_blocks(model)
    assert not reads.by_path


def test_a_checkpoint_that_is_compared_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    layerimp.find_blocks(model)
    monkeypatch.setattr(unsupported, "_extremes", lambda *_: pytest.fail("a weight was looked at"))
    with WeightReads(model) as reads:
        layerimp.save(model, None, tmp_path / "out")
    assert reads.by_name == {"equal": len(list(model.parameters()))}


def test_a_checkpoint_that_overflows_when_it_is_loaded_is_refused(tmp_path: Path) -> None:
    model = tiny("llama", dtype=torch.float16)
    model.model.norm.weight = nn.Parameter(torch.full_like(model.model.norm.weight, 1e5, dtype=torch.float32))
    with pytest.raises(NonFiniteError, match=r"in model\.norm\.weight"):
        layerimp.save(model, None, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_looked_at_is_not_kept_in_memory() -> None:
    model = tiny("llama")
    layerimp.find_blocks(model)
    weight = weakref.ref(model.lm_head.weight)
    del model
    gc.collect()
    assert weight() is None
