"""The gradient sweep refuses what it cannot handle, and says where the problem is."""

from __future__ import annotations

import pytest
import torch
from support.collected import Collect, collect
from support.tiny import tiny

import layerimp
from layerimp.errors import CalibrationError, ModelError, NonFiniteError
from layerimp.sweep import Backward
from layerimp.testing import BLOCKS, batch


def test_a_bad_activation_names_block_and_batch() -> None:
    model = tiny("llama")
    model.model.layers[2].mlp.register_forward_hook(lambda _m, _a, out: out * torch.nan)
    with pytest.raises(NonFiniteError, match="block 2 puts out a NaN or an infinity in batch 0"):
        collect(model, [batch()])


def test_a_bad_gradient_names_block_and_batch() -> None:
    model = tiny("llama")
    # The square root of 0 adds nothing in the forward pass, but its slope is infinite.
    model.model.layers[2].mlp.register_forward_hook(lambda _m, _a, out: out + (0 * out).abs().sqrt())
    with pytest.raises(NonFiniteError, match="the gradient at block 2 is a NaN or an infinity in batch 0"):
        collect(model, [batch()])


def test_bad_predictions_name_the_batch() -> None:
    model = tiny("llama")
    model.model.norm.register_forward_hook(lambda _m, _a, out: out * float("inf") if out.shape[0] == 3 else None)
    with pytest.raises(NonFiniteError, match="what the model predicts is a NaN or an infinity in batch 1"):
        collect(model, [batch(2), batch(3)])


def test_what_does_not_fit_is_named() -> None:
    model = tiny("llama")
    with pytest.raises(CalibrationError, match="nothing to predict: every row is a single token"):
        collect(model, [batch(2, 1)])
    hook = model.model.layers[1].register_forward_hook(lambda _m, _a, out: out.detach())
    with pytest.raises(ModelError, match="no gradient flows back from the output of block 1"):
        collect(model, [batch()])
    hook.remove()
    model.model.layers[1].gradient_checkpointing = True
    with pytest.raises(ModelError, match=r"gradient checkpointing is on in this LlamaForCausalLM.*turn it off"):
        collect(model, [batch()])
    model.model.layers[1].gradient_checkpointing = False
    collect(model, [batch()])

    class Neurons(Collect):
        observes = frozenset({"mlp_act"})

    with pytest.raises(ModelError, match="'collect' reads the site 'mlp_act', which block 0 does not have"):
        layerimp.score(model, [batch()], [Neurons(BLOCKS, Backward())])
