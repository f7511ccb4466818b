"""Six architectures written out by hand, one sublayer at a time, on the weights of a stock model.

A model without some of its sublayers simply applies the other sublayers one after another, without any blocks, hooks or
configuration of a shortened model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

Weights = dict[str, Tensor]


def predicted(model: Any, ids: Tensor, sublayers: Sequence[tuple[int, str]]) -> Tensor:
    """The logits [batch, seq, vocab] after these sublayers, or of a classifier [batch, label]."""
    return ARCHITECTURES[model.config.model_type](model, ids, sublayers)


def _llama(model: Any, ids: Tensor, sublayers: Sequence[tuple[int, str]]) -> Tensor:
    """Pre-norm, with rotary positions; also Mixtral and Qwen3-MoE."""
    config, weights = model.config, dict(model.state_dict())
    eps, theta = config.rms_norm_eps, config.rope_parameters["rope_theta"]
    stream = weights["model.embed_tokens.weight"][ids]
    for block, part in sublayers:
        own = _below(weights, f"model.layers.{block}.")
        if part == "attn":
            normed = _rms(stream, own["input_layernorm.weight"], eps)
            stream = stream + _rotary_attention(own, normed, config, theta, eps=eps)
        else:
            normed = _rms(stream, own["post_attention_layernorm.weight"], eps)
            stream = stream + _gated(own, normed, config, F.silu)
    return _rms(stream, weights["model.norm.weight"], eps) @ weights["lm_head.weight"].T


def _gemma3(model: Any, ids: Tensor, sublayers: Sequence[tuple[int, str]]) -> Tensor:
    """Sandwich norms, which multiply by one plus their weight; sliding and full attention, each with its own theta."""
    config, weights = model.config, dict(model.state_dict())
    eps = config.rms_norm_eps
    stream = weights["model.embed_tokens.weight"][ids] * math.sqrt(config.hidden_size)

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return _rms(x, 1 + weight, eps)

    for block, part in sublayers:
        own = _below(weights, f"model.layers.{block}.")
        if part == "attn":
            kind = config.layer_types[block]
            added = _rotary_attention(
                {**own, **{f"self_attn.{n}_norm.weight": 1 + own[f"self_attn.{n}_norm.weight"] for n in "qk"}},
                norm(stream, own["input_layernorm.weight"]),
                config,
                config.rope_parameters[kind]["rope_theta"],
                eps=eps,
                window=config.sliding_window if kind == "sliding_attention" else None,
                scale=config.query_pre_attn_scalar**-0.5,
            )
            stream = stream + norm(added, own["post_attention_layernorm.weight"])
        else:
            normed = norm(stream, own["pre_feedforward_layernorm.weight"])
            made = _gated(own, normed, config, lambda x: F.gelu(x, approximate="tanh"))
            stream = stream + norm(made, own["post_feedforward_layernorm.weight"])
    return norm(stream, weights["model.norm.weight"]) @ weights["lm_head.weight"].T


def _gpt2(model: Any, ids: Tensor, sublayers: Sequence[tuple[int, str]]) -> Tensor:
    """Pre-norm, learned positions, one matrix for queries, keys and values."""
    config, weights = model.config, dict(model.state_dict())
    stream = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][: ids.shape[1]]
    for block, part in sublayers:
        own = _below(weights, f"transformer.h.{block}.")
        if part == "attn":
            normed = _layer_norm(own, "ln_1", stream, config.layer_norm_epsilon)
            made = normed @ own["attn.c_attn.weight"] + own["attn.c_attn.bias"]
            queries, keys, values = (_heads(projected, config.n_head) for projected in made.chunk(3, dim=-1))
            read = _attention(queries, keys, values, _causal(ids.shape[1]))
            stream = stream + read @ own["attn.c_proj.weight"] + own["attn.c_proj.bias"]
        else:
            normed = _layer_norm(own, "ln_2", stream, config.layer_norm_epsilon)
            neurons = F.gelu(normed @ own["mlp.c_fc.weight"] + own["mlp.c_fc.bias"], approximate="tanh")
            stream = stream + neurons @ own["mlp.c_proj.weight"] + own["mlp.c_proj.bias"]
    return _layer_norm(weights, "transformer.ln_f", stream, config.layer_norm_epsilon) @ weights["lm_head.weight"].T


def _bert(model: Any, ids: Tensor, sublayers: Sequence[tuple[int, str]]) -> Tensor:
    """Post-norm, and a pooler before the classifier."""
    config, weights = model.config, dict(model.state_dict())
    eps = config.layer_norm_eps
    embedding = _below(weights, "bert.embeddings.")
    stream = embedding["word_embeddings.weight"][ids] + embedding["position_embeddings.weight"][: ids.shape[1]]
    stream = _layer_norm(embedding, "LayerNorm", stream + embedding["token_type_embeddings.weight"][0], eps)
    for block, part in sublayers:
        own = _below(weights, f"bert.encoder.layer.{block}.")
        if part == "attn":
            made = (_linear(own, f"attention.self.{name}", stream) for name in ("query", "key", "value"))
            read = _attention(*(_heads(projected, config.num_attention_heads) for projected in made), torch.zeros(()))
            added = _linear(own, "attention.output.dense", read)
            stream = _layer_norm(own, "attention.output.LayerNorm", stream + added, eps)
        else:
            added = _linear(own, "output.dense", F.gelu(_linear(own, "intermediate.dense", stream)))
            stream = _layer_norm(own, "output.LayerNorm", stream + added, eps)
    return _linear(weights, "classifier", _linear(weights, "bert.pooler.dense", stream[:, 0]).tanh())


ARCHITECTURES: dict[str, Callable[[Any, Tensor, Sequence[tuple[int, str]]], Tensor]] = {
    "llama": _llama,
    "mixtral": _llama,
    "qwen3_moe": _llama,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "bert": _bert,
}


def _below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def _layer_norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def _rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight


def _heads(x: Tensor, heads: int) -> Tensor:
    """[batch, seq, heads x size] as [batch, heads, seq, size]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _causal(length: int, window: int | None = None) -> Tensor:
    """The mask added to attention scores [query, key]: minus infinity where a token must not attend."""
    back = torch.arange(length)[:, None] - torch.arange(length)[None]
    hidden = (back < 0) | (back >= (window or length))
    return torch.zeros(length, length).masked_fill(hidden, -math.inf)


def _attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float | None = None) -> Tensor:
    """The outputs of attention heads [batch, heads, seq, size], joined to [batch, seq, heads x size]."""
    scores = queries @ keys.transpose(-1, -2) * (scale or queries.shape[-1] ** -0.5) + mask
    return (scores.softmax(dim=-1) @ values).transpose(1, 2).flatten(-2)


def _rotated(x: Tensor, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * theta ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _rotary_attention(
    own: Weights, x: Tensor, config: Any, theta: float, *, eps: float, window: int | None = None, scale: Any = None
) -> Tensor:
    made = {}
    for name, heads in (
        ("q", config.num_attention_heads),
        ("k", config.num_key_value_heads),
        ("v", config.num_key_value_heads),
    ):
        made[name] = _heads(_linear(own, f"self_attn.{name}_proj", x), heads)
        if (weight := own.get(f"self_attn.{name}_norm.weight")) is not None:
            made[name] = _rms(made[name], weight, eps)
    groups = config.num_attention_heads // config.num_key_value_heads
    queries, keys = _rotated(made["q"], theta), _rotated(made["k"], theta).repeat_interleave(groups, dim=1)
    values = made["v"].repeat_interleave(groups, dim=1)
    read = _attention(queries, keys, values, _causal(x.shape[1], window), scale)
    return _linear(own, "self_attn.o_proj", read)


def _gated(own: Weights, x: Tensor, config: Any, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """A gated MLP, or experts, of which each token uses the most probable ones."""
    if "mlp.gate.weight" not in own:
        return _linear(
            own, "mlp.down_proj", activation(_linear(own, "mlp.gate_proj", x)) * _linear(own, "mlp.up_proj", x)
        )
    chances = (x @ own["mlp.gate.weight"].T).softmax(dim=-1)
    least = chances.topk(config.num_experts_per_tok, dim=-1).values[..., -1:]
    chances = chances * (chances >= least)
    if getattr(config, "norm_topk_prob", True):
        chances = chances / chances.sum(dim=-1, keepdim=True)
    made = []
    for into, out in zip(own["mlp.experts.gate_up_proj"], own["mlp.experts.down_proj"], strict=True):
        gate, up = (x @ into.T).chunk(2, dim=-1)
        made.append((activation(gate) * up) @ out.T)
    return (torch.stack(made, dim=-1) * chances[..., None, :]).sum(dim=-1)
