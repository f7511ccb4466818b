"""Tiny random models of many architectures, made in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from layerimp.blocks.sites import find_taps
from layerimp.models.discovery import find_blocks
from layerimp.testing import BLOCKS, VOCAB, tiny_tokenizer
from layerimp.testing.tiny import grown

_LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": BLOCKS, "n_head": 4, "n_positions": 64}

DECODERS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "smollm3": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | {"head_dim": 8},
    "qwen3_moe": _LLAMA | {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "gemma": _LLAMA | {"head_dim": 8},
    "gemma2": _LLAMA | {"head_dim": 8},
    "gemma3_text": _LLAMA | {"head_dim": 8},
    "phi": _LLAMA,
    "phi3": _LLAMA,
    "stablelm": _LLAMA,
    "stablelm:parallel": _LLAMA | {"use_parallel_residual": True},
    "cohere": _LLAMA,
    "glm4": _LLAMA | {"head_dim": 8},
    "gpt2": _GPT2,
    "gptj": _GPT2 | {"rotary_dim": 4},
    "gpt_neox": _LLAMA,
    "gpt_neox:sequential": _LLAMA | {"use_parallel_residual": False},
    "opt": {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
    },
    "falcon": {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": BLOCKS, "num_attention_heads": 4},
    "falcon:sequential": {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "parallel_attn": False,
    },
    "bloom": {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": BLOCKS, "n_head": 4},
    "mixtral": _LLAMA | {"num_local_experts": 4},
    "olmo2": _LLAMA,
    "gpt_oss": _LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "granite": _LLAMA | {"residual_multiplier": 0.3},
    "gpt_neo": {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_layers": BLOCKS,
        "num_heads": 4,
        "attention_types": [[["global", "local"], BLOCKS // 2]],
        "max_position_embeddings": 64,
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _LLAMA,
    "distilbert": {
        "vocab_size": VOCAB,
        "dim": 32,
        "hidden_dim": 64,
        "n_layers": BLOCKS,
        "n_heads": 4,
        "max_position_embeddings": 64,
    },
    "roberta": _LLAMA | {"max_position_embeddings": 66},
    "electra": _LLAMA | {"embedding_size": 32},
    "deberta-v2": _LLAMA | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16},
}
ALL = DECODERS | ENCODERS
UNPRUNABLE: dict[str, dict[str, Any]] = {
    "gemma4_text": _LLAMA
    | {
        "head_dim": 8,
        "global_head_dim": 8,
        "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"] * (BLOCKS // 2),
    },
    "modernbert": _LLAMA | {"global_attn_every_n_layers": 2},
}
"""Architectures that can be scored, but whose blocks depend on their position."""
ALIKE = frozenset(
    """
    mistral smollm3 qwen2 qwen3 gemma phi phi3 stablelm stablelm:parallel cohere glm4 gptj gpt_neox:sequential
    falcon:sequential mixtral olmo2 gpt_neo distilbert roberta electra
    """.split()
)
"""Architectures whose blocks are built as those of others: they are tried with the slow tests."""
EAGER_ONLY = frozenset({"gemma2", "bloom", "gpt_neo", "gpt_oss", "deberta-v2"})
"""Architectures that do not support sdpa."""
UNEVEN = {"mlp_only_layers": [1, 3], "intermediate_size": 256}
"""The changes of qwen3_moe that make two blocks with small experts, and two large ones without."""
POST_NORM = frozenset(ENCODERS)
EXPERTS = frozenset({"mixtral", "qwen3_moe", "gpt_oss"})
"""Architectures whose MLP has no single down projection."""
PARALLEL = frozenset({"phi", "stablelm:parallel", "cohere", "gptj", "gpt_neox", "falcon"})
"""Architectures whose attention and MLP are parallel branches, which cannot be divided."""


def each_of(names: Iterable[str]) -> list[Any]:
    """Architectures as the parameters of a test, in which those that are built as others are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE)) for name in names]


def tiny(
    name: str = "llama", *, attention: str | None = None, dtype: torch.dtype = torch.float32, **changes: Any
) -> PreTrainedModel:
    """A random model of 4 blocks, the same each time; its branches are large enough to matter."""
    torch.manual_seed(0)
    modes = torch.get_default_dtype(), torch.is_inference_mode_enabled()
    key = name, attention, dtype, repr(sorted(changes.items())), modes
    if key not in _MADE:
        kwargs = {} if attention is None else {"attn_implementation": attention}
        config = AutoConfig.for_model(name.split(":")[0], **{**(ALL | UNPRUNABLE)[name], **changes})
        auto = AutoModelForSequenceClassification if name in {*ENCODERS, "modernbert"} else AutoModelForCausalLM
        _MADE[key] = grown(auto, config, dtype, **kwargs)
        if len(_MADE) > _KEPT:
            del _MADE[next(iter(_MADE))]
    return copy.deepcopy(_MADE[key])


_MADE: dict[tuple[object, ...], PreTrainedModel] = {}
"""The models made last, of which tests get copies: a copy takes half the time."""
_KEPT = 16


def classifier(name: str, **changes: Any) -> PreTrainedModel:
    """A tiny classifier with three classes on the backbone of a decoder or an encoder."""
    known = ALL[name]
    config = AutoConfig.for_model(name, **(known | {"num_labels": 3, "pad_token_id": 0} | changes))
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).double().eval()


def saved(model: Any, directory: Path, **options: Any) -> Path:
    """The checkpoint of a model, with a tokenizer."""
    model.save_pretrained(directory, **options)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def shut(model: PreTrainedModel, block: int) -> PreTrainedModel:
    """The model with one block that adds exactly nothing to the residual stream."""
    stack = find_blocks(model)
    taps = find_taps(stack)[block]
    for site in ("attn_out", "mlp_out"):
        module = stack[block].get_submodule(taps[site].path)
        for parameter in module.parameters():
            # Gemma's norms multiply by one plus their weight.
            scale = parameter.ndim == 1 and "norm" in type(module).__name__.lower()
            torch.nn.init.constant_(parameter, -1.0 if scale else 0.0)
    return model
