"""Relevance against its conservation law, a hand-computed toy, and a model that is written out with constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from layerimp_lrp import LRP, LRPConfig, Relevance
from layerimp_lrp.activations import linear_activations
from layerimp_lrp.rules import CONSTANTS, Rules
from support.tiny import ALIKE, ALL, EAGER_ONLY, EXPERTS, UNPRUNABLE, classifier, shut, tiny
from torch import nn
from torch.nn import functional
from torch.overrides import _get_current_function_mode_stack
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import layerimp
from layerimp.errors import ModelError
from layerimp.scorer import Importance
from layerimp.sweep import Backward
from layerimp.testing import BLOCKS, Check, batch, padded_batch, parametrize

Batch = dict[str, torch.Tensor]
KINDS = [
    pytest.param(name, attention, marks=[pytest.mark.slow] * (name in ALIKE))
    for attention in ("eager", "sdpa")
    for name in ALL | UNPRUNABLE
    if attention == "eager" or name not in EAGER_ONLY
]


@parametrize(LRP(BLOCKS, LRPConfig(rule="attnlrp")))
def test_contract(check: Check) -> None:
    check()


def score(model: Any, batches: list[Batch], rule: Any = "cp") -> Importance:
    return layerimp.score(model, batches, [LRP(BLOCKS, LRPConfig(rule=rule))])["lrp"]


def missing(model: Any, batches: list[Batch]) -> float:
    """The largest share of the logits that is unaccounted for at any block."""
    scorer = LRP(BLOCKS)
    assert not layerimp.score(model, batches, [scorer])["lrp"].notes
    return max(scorer.missing())


def with_biases(model: Any) -> Any:
    """Random biases and norms in place of zeros and ones."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model


@pytest.mark.parametrize(("architecture", "attention"), KINDS)
def test_relevance_is_conserved(architecture: str, attention: str) -> None:
    dtype = torch.float32 if architecture in EXPERTS else torch.float64
    assert missing(with_biases(tiny(architecture, attention=attention, dtype=dtype)), [padded_batch()]) < 1e-6


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama", "gpt2"])
@pytest.mark.parametrize("labelled", [True, False])
def test_relevance_of_a_label_is_conserved(architecture: str, labelled: bool) -> None:
    model, inputs = with_biases(classifier(architecture)), padded_batch()
    own = torch.cat(
        [model(input_ids=ids[None, :n]).logits for ids, n in zip(inputs["input_ids"], (12, 5, 9), strict=True)]
    )
    given = inputs | ({"labels": (own.argmax(-1) + 1) % 3} if labelled else {})
    assert missing(model, [given]) < 1e-6
    assert (score(model, [given]) == score(model, [inputs | {"labels": own.argmax(-1)}])) is not labelled


@pytest.mark.same_bits("the outputs of a model with and without the rules of LRP")
@pytest.mark.parametrize("rule", ["cp", "attnlrp"])
@pytest.mark.parametrize(("architecture", "attention"), KINDS)
def test_no_value_changes(architecture: str, attention: str, rule: Any) -> None:
    model, inputs = tiny(architecture, attention=attention), padded_batch()
    expected = model(**inputs).logits
    with linear_activations(model), Rules(rule):
        logits = model(**inputs).logits
    assert torch.equal(logits, expected)
    assert logits.requires_grad


@pytest.mark.parametrize("rule", ["cp", "attnlrp"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3_text", "bert"])
def test_sdpa_equals_eager(architecture: str, rule: Any) -> None:
    fused, plain = (
        score(tiny(architecture, attention=attention, dtype=torch.float64), [padded_batch()], rule)
        for attention in ("sdpa", "eager")
    )
    np.testing.assert_allclose(fused.scores, plain.scores, rtol=1e-6)
    np.testing.assert_allclose(fused.columns["signed_relevance"], plain.columns["signed_relevance"], rtol=1e-5)


def test_everything_is_undone() -> None:
    model = tiny("gpt2")
    attributes = [set(vars(module)) for module in model.modules()]
    expected = torch.autograd.grad(model(**batch()).logits.sum(), model.transformer.wte.weight)[0]
    score(model, [batch()])
    with pytest.raises(KeyError), linear_activations(model), Rules():
        raise KeyError
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert not _get_current_function_mode_stack()
    assert torch.equal(torch.autograd.grad(model(**batch()).logits.sum(), model.transformer.wte.weight)[0], expected)


def test_a_toy_by_hand() -> None:
    """Two layers, x -> relu(W x + b) -> v h + c: R_i = sum_j x_i w_ji / z_j R_j, with what the biases take.

    z = (1*2 + 3*-1 + 2, -1*2 + 1*-1 + 1) = (1, -2), h = (1, 0), f = 4*1 + 5*0 + 3 = 7.
    R_h = (4, 0); the output's bias takes 3. R_x = (1*2/1*4, 3*-1/1*4) = (8, -12); the hidden bias takes 2/1*4 = 8.
    """
    first, second = nn.Linear(2, 2), nn.Linear(2, 1)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 3.0], [-1.0, 1.0]]))
        first.bias.copy_(torch.tensor([2.0, 1.0]))
        second.weight.copy_(torch.tensor([[4.0, 5.0]]))
        second.bias.fill_(3.0)
    for parameter in (*first.parameters(), *second.parameters()):
        parameter.requires_grad_(False)
    x = torch.tensor([[2.0, -1.0]], requires_grad=True)
    with Rules() as rules:
        f = second(torch.relu(first(x)))
        f.sum().backward()
    assert f.tolist() == [[7.0]]
    assert (x * x.grad).tolist() == [[8.0, -12.0]]
    assert float(rules.sums[CONSTANTS]) == 3.0 + 8.0


@pytest.mark.parametrize(
    ("function", "by_hand"),
    [
        (lambda x: functional.silu(x) * x.flip(-1), lambda x: 1 / (1 + np.exp(-x)) * x[::-1]),
        (lambda x: x / x.pow(2).mean(-1, keepdim=True).sqrt(), lambda x: x / np.sqrt((x**2).mean())),
        (lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)), lambda x: x / np.sqrt((x**2).mean())),
        (lambda x: x**3, lambda x: x**3),
        (lambda x: x * torch.sigmoid(1.7 * x), lambda x: x / (1 + np.exp(-1.7 * x))),
        (lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)), lambda x: x * _normal(x)),
    ],
)
def test_relevance_goes_where_the_value_comes_from(function: Any, by_hand: Any) -> None:
    """Of an element-wise step and of a norm each element keeps its own; two factors share theirs."""
    x = torch.tensor([0.3, -1.2, 2.0, -0.4], dtype=torch.float64, requires_grad=True)
    with Rules():
        y = function(x)
        y.sum().backward()
    assert x.grad is not None
    relevance, value = (x * x.grad).detach().numpy(), by_hand(x.detach().numpy())
    if "flip" in function.__code__.co_names:
        silu = x.detach().numpy() * value
        value = (silu + silu[::-1]) / 2
    np.testing.assert_allclose(relevance, value, rtol=1e-12)
    np.testing.assert_allclose(relevance.sum(), float(y.detach().sum()), rtol=1e-12)


def _normal(x: np.ndarray) -> np.ndarray:
    return torch.special.ndtr(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_is_linear(bias: bool) -> None:
    """Relevance of x_i in y_j is (delta_ij - 1/n) x_i w_j / sigma."""
    norm = nn.LayerNorm(4, bias=bias, dtype=torch.float64)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    norm.requires_grad_(False)
    x = torch.tensor([[0.3, -1.2, 2.0, -0.4], [1.0, 0.0, 0.0, 5.0]], dtype=torch.float64, requires_grad=True)
    with Rules():
        norm(x)[:, 1].sum().backward()
    rows, weight = x.detach().numpy(), norm.weight.numpy()
    share = np.eye(4)[1] - 1 / 4
    expected = share * weight[1] / np.sqrt(rows.var(1, keepdims=True) + norm.eps)
    np.testing.assert_allclose(x.grad, expected, rtol=1e-9, atol=1e-15)


def written_out(model: Any, inputs: Batch, rule: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """A Llama with what the rules hold constant detached by hand: its hidden states, and the targets' logits."""

    def constant(value: torch.Tensor) -> torch.Tensor:
        return value.detach()

    def half(value: torch.Tensor) -> torch.Tensor:
        return value / 2 + constant(value) / 2

    def norm(module: Any, x: torch.Tensor) -> torch.Tensor:
        return module.weight * x * constant((x.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt())

    def turned(x: torch.Tensor) -> torch.Tensor:
        low, high = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-high, low], dim=-1) * sin

    (row,) = inputs["input_ids"]
    base, config, length = model.model, model.config, len(row)
    size, groups = config.hidden_size // config.num_attention_heads, config.num_attention_heads
    hidden = base.embed_tokens(row).detach().requires_grad_()
    cos, sin = (part[0] for part in base.rotary_emb(hidden[None], torch.arange(length)[None]))
    above = torch.ones(length, length, dtype=torch.bool).triu(1)
    states = [hidden]
    for block in base.layers:
        attention, mlp = block.self_attn, block.mlp
        x = norm(block.input_layernorm, hidden)
        q, k, v = (
            part(x).view(length, -1, size).transpose(0, 1)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        k, v = (part.repeat_interleave(groups // len(part), dim=0) for part in (k, v))
        scores = turned(q) @ turned(k).mT / size**0.5
        if rule == "cp":
            mixed = constant(scores.masked_fill(above, -torch.inf).softmax(-1)) @ v
        else:
            mixed = half(half(scores).masked_fill(above, -torch.inf).softmax(-1) @ v)
        hidden = hidden + attention.o_proj(mixed.transpose(0, 1).reshape(length, -1))
        x = norm(block.post_attention_layernorm, hidden)
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        hidden = hidden + mlp.down_proj(half(gate * constant(gate.sigmoid()) * up))
        states.append(hidden)
    logits = model.lm_head(norm(base.norm, hidden))
    return states, logits[range(length - 1), row[1:]]


@pytest.mark.parametrize("rule", ["cp", "attnlrp"])
def test_equals_a_model_written_out(rule: Any) -> None:
    model = tiny("llama", dtype=torch.float64)
    batches = [batch(1, 12, seed=seed) for seed in range(2)]
    branch, signed, logits = np.zeros(BLOCKS), np.zeros(BLOCKS), 0.0
    for inputs in batches:
        states, targets = written_out(model, inputs, rule)
        gradients = torch.autograd.grad(targets.sum(), states)
        logits += float(targets.detach().abs().sum())
        for block in range(BLOCKS):
            relevance = ((states[block + 1] - states[block]) * gradients[block + 1]).detach().numpy()
            branch[block] += np.abs(relevance).sum()
            signed[block] += relevance.sum()
    importance = score(model, batches, rule)
    np.testing.assert_allclose(importance.scores, branch / logits, rtol=1e-5)
    np.testing.assert_allclose(importance.columns["signed_relevance"], signed / logits, rtol=1e-4)


def test_a_step_without_a_rule_is_told() -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.act_fn = nn.Softplus()
    (note,) = score(model, [batch()]).notes
    assert note.startswith("relevance is not conserved: ")
    assert note.endswith("the model computes something that no rule knows")
    assert not score(model, [batch()], "attnlrp").notes


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3_text"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_identity_block_scores_exactly_0(architecture: str, dtype: torch.dtype) -> None:
    importance = score(shut(tiny(architecture, dtype=dtype), 2), [batch()])
    assert importance.scores[2] == 0
    assert min(importance.scores[:2] + importance.scores[3:]) > 0
    assert not importance.notes


def test_rule_sets_do_not_share_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[Backward] = []
    drive = Backward.drive
    monkeypatch.setattr(Backward, "drive", lambda self, *a, **k: (passes.append(self), drive(self, *a, **k))[1])
    other = LRP(BLOCKS, LRPConfig(rule="attnlrp"))
    model = tiny("llama")
    importances = layerimp.score(
        model, [batch()], {"gbis": "gbis", "lrp": "lrp", "taylor": "taylor", "again": "lrp", "attnlrp": other}
    )
    assert passes == [Backward(parameters=True), Relevance(), Relevance(rule="attnlrp")]
    assert importances["lrp"] == importances["again"] == score(model, [batch()])
    assert importances["attnlrp"] == score(model, [batch()], "attnlrp")


def test_what_cannot_be_followed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(
        ModelError, match=r'LlamaForCausalLM \(flash_attention_2\) is a kernel.*attn_implementation="sdpa"'
    ):
        score(model, [batch()])
    model.config._attn_implementation = "sdpa"

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient

    with monkeypatch.context() as patch:
        fused = lambda _m, q, k, v, mask, **_: (Fused.apply(q).transpose(1, 2), None)  # noqa: E731
        patch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", fused)
        with pytest.raises(ModelError, match="this LlamaForCausalLM has no attention that the rules"):
            score(model, [batch()])
    with monkeypatch.context() as patch:
        patch.setattr(type(model.model.norm), "forward", lambda _self, x: Fused.apply(x))
        with pytest.raises(ModelError, match="the normalizations of this LlamaForCausalLM are kernels"):
            score(model, [batch()])
    model.model.layers[0].gradient_checkpointing = True
    with pytest.raises(ModelError, match="gradient checkpointing is on"):
        score(model, [batch()])


@pytest.mark.parametrize(
    "module", [nn.Dropout(), nn.Identity(), nn.Softmax(-1), nn.Sigmoid(), nn.Linear(7, 7, bias=False), nn.LayerNorm(7)]
)
def test_other_modules_are_no_activations(module: nn.Module) -> None:
    with linear_activations(module.eval()):
        assert "forward" not in vars(module)


@pytest.mark.parametrize("module", [nn.GELU(), nn.SiLU(), nn.ReLU(), nn.PReLU(), nn.Tanh(), nn.Hardswish()])
def test_activations_are_found(module: nn.Module) -> None:
    x = torch.tensor([-2.0, 0.0, 0.7], requires_grad=True)
    with linear_activations(module):
        assert "forward" in vars(module)
        y = module(x)
        y.sum().backward()
    assert "forward" not in vars(module)
    assert x.grad is not None
    torch.testing.assert_close((x * x.grad).detach(), module(x).detach())
