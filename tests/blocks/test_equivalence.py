"""Equal models compare as equal wherever their weights lie in memory, and unequal models as unequal."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import ALL, ENCODERS, EXPERTS, each_of, tiny
from transformers import PreTrainedModel

from layerimp.blocks import equivalence
from layerimp.blocks.equivalence import deviation, first_difference
from layerimp.checkpoint.saving import require_equal
from layerimp.errors import CheckpointError
from layerimp.models.discovery import find_blocks

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def shifted(model: PreTrainedModel, elements: int) -> PreTrainedModel:
    """An equal model whose weights are shifted by some elements from the address that torch would choose."""
    other = copy.deepcopy(model)
    for tensor in other.parameters():
        room = torch.empty(tensor.numel() + elements, dtype=tensor.dtype)
        tensor.data = room[elements:].view(tensor.shape).copy_(tensor.data)
    return other


@pytest.mark.parametrize("name", each_of([*ENCODERS, "llama", "gemma3_text", "gpt2", "mixtral", "bloom"]))
@settings(derandomize=True, max_examples=3, deadline=None, database=None)
@given(data=st.data())
def test_equal_weights_are_never_refused(name: str, data: st.DataObject) -> None:
    """A classifier's logits are a product with one row, whose rounding on some processors depends on the address."""
    kinds = DTYPES[:-1] if name in EXPERTS else DTYPES  # fused experts do not support float64
    model = tiny(name, dtype=data.draw(st.sampled_from(kinds)))
    tokens = data.draw(st.sampled_from([1, 2, 12]))
    threads = torch.get_num_threads()
    torch.set_num_threads(data.draw(st.sampled_from([1, 2])))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(equivalence, "TOKENS", max(tokens, 2))
            patch.setattr(equivalence, "PROMPT", 1)
            require_equal(model, shifted(model, data.draw(st.integers(0, 17))))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", each_of(ALL))
def test_any_changed_bit_is_found(name: str) -> None:
    model = tiny(name)
    other = shifted(model, 3)
    weights = dict(other.named_parameters())
    path, weight = list(weights.items())[len(weights) // 2]
    bits = weight.data.view(torch.int32).flatten()
    bits[-1] ^= 1
    assert first_difference(model, other) == path
    with pytest.raises(CheckpointError, match=f"weight {path} is not the one in memory"):
        require_equal(model, other)
    bits[-1] ^= 1
    assert first_difference(model, other) is None


def test_swapped_weights_are_found() -> None:
    model, other = tiny("llama"), tiny("llama")
    first, second = (block.mlp.up_proj for block in list(find_blocks(other))[:2])
    first.weight, second.weight = second.weight, first.weight
    assert first_difference(model, other) == "model.layers.0.mlp.up_proj.weight"


def test_swapped_blocks_are_found() -> None:
    model, other = tiny("llama"), tiny("llama")
    blocks = find_blocks(other).modules
    blocks[0], blocks[2] = blocks[2], blocks[0]
    assert first_difference(model, other).startswith("model.layers.0.")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("mistral", {"sliding_window": 4}, "hidden states are"),
        ("llama", {"rms_norm_eps": 1e-2}, "hidden states are"),
        ("gemma2", {"final_logit_softcapping": 1.0}, "logits are"),
        ("granite", {"logits_scaling": 2.0}, "logits are"),
        ("gpt_neo", {"attention_types": [[["local", "global"], 2]], "window_size": 4}, "hidden states are"),
    ],
)
def test_equal_weights_that_compute_otherwise_are_refused(
    name: str, spoil: dict[str, object], said: str, dtype: torch.dtype
) -> None:
    model, other = tiny(name, dtype=dtype), tiny(name, dtype=dtype, **spoil)
    other.load_state_dict(model.state_dict())
    with pytest.raises(CheckpointError, match=said):
        require_equal(model, other)


def test_nan_and_the_sign_of_zero_are_bits() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
        model.lm_head.weight[0, 1] = 0.0
    other = copy.deepcopy(model)
    assert first_difference(model, other) is None
    with torch.no_grad():
        other.lm_head.weight[0, 1] = -0.0
    assert first_difference(model, other) == "lm_head.weight"


def test_a_missing_and_a_further_weight_are_differences() -> None:
    model, other = tiny("llama"), tiny("llama")
    other.extra = torch.nn.Parameter(torch.ones(2))
    assert first_difference(model, other) == first_difference(other, model) == "extra"


def test_deviation_counts_roundings_at_the_largest_value() -> None:
    values = torch.tensor([1.0, -4.0])
    assert deviation(values, values) == 0
    assert deviation(values, values + torch.tensor([0.0, 4.0 * 2**-23])) == 1.0
    assert deviation(values, values[:1]) == deviation(values, torch.tensor([float("nan"), 0.0])) == float("inf")
