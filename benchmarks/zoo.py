"""Tiny random models of every architecture in Transformers for text, or for text with images.

A configuration is reduced according to the meaning of its fields: sizes, heads, experts, vocabularies and layers become
small in every architecture, and windows become shorter than a trial. A few types need further changes, which are in
`ADJUSTED`. Weights are drawn from a wide distribution, and biases, norms and buffers differ from their initial values,
so that no difference is hidden by a zero.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

HEADS = {
    "causal": ("AutoModelForCausalLM", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "classifier": ("AutoModelForSequenceClassification", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    "image": ("AutoModelForImageTextToText", MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
}
BLOCKS = 6
VOCAB = 99
LARGEST = 20_000_000
"""The number of parameters above which a model is not tiny."""

KV = "kv"
"""The number of key-value heads: as many as query heads if that is the default; otherwise half of them."""

SHRUNK: list[tuple[str, Any]] = [
    (r"(\w+_)?token_(id|index)|image_token|.*_pad_id", None),  # see `_token`
    (r"num_labels|num_channels|in_channels|qk_head_dim|attention_hidden_size|attention_head_dim", ...),
    (r"(\w+_)?(num_key_value_heads|num_kv_heads|kv_n_heads|num_query_groups|index_n_heads)", KV),
    (r"(\w+_)?(num_)?attention_heads|(\w+_)?num_heads|n_heads?|num_(decoder|encoder)_attention_heads", 4),
    (r"mamba_n_heads", 4),
    (r"mamba_d_head", 16),
    (r"n_groups|mamba_n_?groups", 2),
    (r"rotary_dim", 4),
    (r"n_mamba_heads|num_cross_attention_heads|num_self_attention_heads|linear_num_(key|value)_heads", 2),
    (r"num_experts|n_routed_experts|num_local_experts|moe_num_experts|num_moe_experts", 4),
    (r"num_experts_per_tok(en)?|moe_top_?k|top_k_experts|moe_k|experts_top_k", 2),
    (r"n_group|topk_group|num_expert_group", 1),
    (r"n_shared_experts|num_shared_experts|moe_num_shared_experts", 1),
    (r"(\w+_)?vocab_size(_per_layer_input)?|(\w+_)?vocabulary_size", VOCAB),
    (r"(\w+_)?num_hidden_layers|n_layers?|(num_)?(encoder|decoder)_layers|num_layers", BLOCKS),
    (r"(original_)?max_position_embeddings|n_positions|max_seq_len(gth)?|n_ctx|context_length", 128),
    (r"(max_(source|target)_positions)", 128),
    (r"sliding_window(_size)?|attention_chunk_size|attention_window_size|window_size", 4),
    (r"(moe|expert|shared|dense|shared_experts?)(_\w+)?_intermediate_size|expert_ffn_hidden_size", 16),
    (r"(\w+_)?head_dim|d_kv|d_head|dim_head|kv_channels|attention_head_size", 8),
    (r"(q|kv|o)_lora_rank", 16),
    (r"(\w+_)?intermediate_size(_mlp)?|ffn_hidden_size|ffn_dim|(en|de)coder_ffn_dim|d_ff|n_inner|dff|dim_ff|hidden_dim"
     r"|d_inner|feed_forward_size", 64),
    (r"(\w+_)?hidden_size|d_model|n_embd|dim|emb_dim|embedding_size|embedding_dim|word_embed_proj_dim|lru_width", 32),
    (r"ssm_state_size|state_size|mamba_d_state", 8),
    (r"time_step_rank|mamba_dt_rank", 4),
    (r"depth", 2),
    (r"image_size", 32),
    (r"patch_size", 8),
    (r"projection_dim|projector_hidden_size|text_hidden_size|out_hidden_size", 32),
    (r"mm_tokens_per_image", 4),
]  # fmt: skip
"""The new value of a field, by the first pattern that matches its name; `...` keeps the value."""

_HYBRID = ["full_attention" if index in (2, 4) else "linear_attention" for index in range(BLOCKS)]
_INDEXED = [kind.replace("full", "indexed") for kind in _HYBRID]
_MIXED = ["sliding_attention", "full_attention"] * 3
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
ADJUSTED: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_types": _HYBRID},
    "bamba": {"attn_layer_indices": [2, 4]},
    "granitemoehybrid": {"layer_types": _HYBRID},
    "kimi_linear": {"layer_types": _HYBRID},
    "olmo_hybrid": {"layer_types": _HYBRID},
    "qwen3_5": {"text_config": {"layer_types": _HYBRID}},
    "qwen3_5_text": {"layer_types": _HYBRID},
    "qwen3_5_moe": {"text_config": {"layer_types": _HYBRID}},
    "qwen3_5_moe_text": {"layer_types": _HYBRID},
    "qwen3_next": {"layer_types": _HYBRID},
    "mistral4": {"head_dim": 16},
    "esmc": {"num_key_value_heads": 4, "vocab_size": VOCAB},
    "blenderbot": {"encoder_layers": BLOCKS},
    "whisper": {"encoder_layers": BLOCKS, "decoder_layers": BLOCKS},
    "blt": {"encoder_hash_byte_group_vocab": 101},
    "perceiver": {
        "num_latents": 8,
        "d_latents": 32,
        "d_model": 32,
        "num_self_attends_per_block": BLOCKS,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
        "vocab_size": VOCAB,
    },
    "bloom": {"n_layer": BLOCKS},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
        "layer_types": _MIXED,
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "esm": {"vocab_size": VOCAB, "pad_token_id": 0, "mask_token_id": 90, "position_embedding_type": "rotary"},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "dots3_note_text": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": _MIXED},
    "gpt_neo": {"attention_types": [[["global", "local"], BLOCKS // 2]]},
    "hrm_text": {"num_layers_per_stack": 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4, "patch_size": 8},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 2},
    "lilt": {"hidden_size": 48},
    "mamba2": {"head_dim": 16},
    "ministral": {"head_dim": 8},
    "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32, "embedding_size": 32},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp", "linear_attention", "moe"]
    },
    "qwen4_exp_text": {
        "layer_types": _INDEXED,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "ngram_vocab_size_base": 101,
        "ple_embed_dim": 32,
    },
    "reformer": {"axial_pos_shape": (8, 16), "axial_pos_embds_dim": (16, 16), "is_decoder": True},
    "reformer:classifier": {"is_decoder": False},
    "t5": {"decoder_start_token_id": 0},
    "umt5": {"decoder_start_token_id": 0},
    "mt5": {"decoder_start_token_id": 0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid"]
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid", "linear_attention", "hybrid"]
    },
}
_MROPE = {"rope_parameters": _ROPE | {"mrope_section": [2, 1, 1]}}
_DEEPSTACK = {"vision_config": {"depth": 4, "deepstack_visual_indexes": [0, 1, 2]}}
_TILES = {"image_grid_pinpoints": [[32, 64]]}
_SECTIONS = {"text_config": _MROPE}
_MARKED = {"image_token_id": 95, "video_token_id": 96}
_VISUAL_WORDS = [first + second for first in ("", "B", "C") for second in "ABCDEFGHIJ"]  # the digits of a number
_QUANTISED = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1}
_BY_TIMM = {"architecture": "test_resnet", "hidden_size": 96}  # these types are built only where timm is installed
ADJUSTED |= dict.fromkeys(("glm46v", "glm4v", "glm_ocr", "glmga", "paddleocr_vl"), _SECTIONS)
ADJUSTED |= dict.fromkeys(("cosmos3_omni", "qwen3_vl", "qwen3_vl_moe"), _DEEPSTACK)
ADJUSTED |= dict.fromkeys(("llava_next", "llava_next_video", "llava_onevision"), _TILES)
ADJUSTED |= dict.fromkeys(("minicpm_ocr", "minicpmv4_6", "minicpmv4_7"), _MARKED)
ADJUSTED |= {
    "chameleon": {
        "vocabulary_map": {"<image>": 84} | {f"IMGIMG{word}Z": 30 + index for index, word in enumerate(_VISUAL_WORDS)},
        "vq_config": _QUANTISED | {"latent_channels": 32, "num_embeddings": len(_VISUAL_WORDS), "embed_dim": 32},
    },
    "deepseek_ocr2": {
        "text_config": {"mlp_layer_types": ["dense", *["sparse"] * (BLOCKS - 1)], "num_experts_per_tok": 2}
    },
    "emu3": {
        "vocabulary_map": {"<|extra_200|>": 83, "<image>": 84}
        | {f"<|visual token {index:06d}|>": 30 + index for index in range(30)},
        "vq_config": _QUANTISED
        | {"latent_channels": 4, "codebook_size": 30, "embed_dim": 4, "temporal_downsample_factor": 1},
    },
    "ernie4_5_vl_moe": {"text_config": {"rope_parameters": _ROPE | {"mrope_section": [1, 1, 2]}}},
    "fast_vlm": {"vision_config": _BY_TIMM},
    "gemma3n": {
        "text_config": ADJUSTED["gemma3n_text"],
        "vision_config": _BY_TIMM | {"vocab_offset": 90, "vocab_size": 4},
        "audio_config": {"vocab_offset": 94, "vocab_size": 5, "conf_num_hidden_layers": 1},
        "audio_token_id": 96,
        "audio_soft_tokens_per_image": 6,
        "vision_soft_tokens_per_image": 4,
    },
    "llama4": {  # the shuffle joins the features of four patches
        "vision_config": {
            "intermediate_size": 128,
            "projector_input_dim": 64,
            "projector_output_dim": 64,
            "vision_output_dim": 64,
        }
    },
    "perception_lm": {
        "vision_config": {
            "architecture": "vit_tiny_patch16_224",
            "model_args": {
                **{"embed_dim": 32, "img_size": [32, 32], "patch_size": 8},
                **{"depth": 2, "num_heads": 4, "global_pool": ""},
            },
        }
    },
    "qwen2_5_omni_thinker": {
        "audio_end_token_id": 89,  # else that of an image
        "vision_start_token_id": 87,  # stated by checkpoints, not by the class
        "text_config": _MROPE,
        "vision_config": {"window_size": 32},
    },
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 87, "audio_start_token_id": 89},  # else that of a video
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "cohere_compass": {"text_config": ADJUSTED["cohere_compass_text"]},
    "exaone4_5": {
        "text_config": {
            "model_type": "exaone4",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": BLOCKS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": VOCAB,
            "sliding_window": 4,
            "sliding_window_pattern": 2,
        },
        "vision_config": {"window_size": 32, "num_key_value_heads": 2},
    },
    "gemma4": {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "head_dim": 8,
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "position_embedding_size": 32,
        },
        "audio_config": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "subsampling_conv_channels": [128, 4],
            "output_proj_dims": 32,
        },
    },
    "gemma4_unified": {
        "vision_config": {
            "patch_size": 8,
            "pooling_kernel_size": 2,
            "mm_embed_dim": 32,
            "mm_posemb_size": 32,
            "output_proj_dims": 32,
        },
        "audio_config": {"audio_embed_dim": 32},
    },
    "glm4v_moe": {"text_config": {"rope_parameters": _ROPE | {"mrope_section": [1, 1, 0]}}},
    "granite4_vision": _TILES
    | {
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[1, 0], [3, 2]],
        "spatial_target_layers": [1, 3],
        "vision_config": {"hidden_size": 64},
    },
    "hunyuan_vl": {"text_config": _MROPE | {"head_dim": 8}},
    "hyperclovax_vision_v2": {"vision_config": {"window_size": 32}},
    "idefics": {"cross_layer_interval": 2},
    "janus": {
        "vq_config": {
            "base_channels": 32,
            "latent_channels": 32,
            "channel_multiplier": [1, 1],
            "num_embeddings": 32,
            "image_token_embed_dim": 32,
        }
    },
    "mllama": {
        "text_config": {"cross_attention_layers": [3]},
        "vision_config": {"intermediate_layers_indices": [0, 1], "vision_output_dim": 96, "num_global_layers": 2},
    },
    "molmo2": {
        "adapter_config": {
            "vision_feature_layer": [-1, -2],
            "hidden_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        }
    },
    "muse_glimmer": {"out_hidden_size": 128},
    "muse_spark": {"audio_config": {"hidden_sizes": [8, 8, 16, 16], "out_hidden_size": 32}, "out_hidden_size": 128},
    "nemotron_h_omni": {"text_config": ADJUSTED["nemotron_h"], "vision_config": {"video_temporal_patch_size": 2}},
    "qwen2_5_vl": {"text_config": _MROPE, "vision_config": {"window_size": 32}},
    "qwen2_vl": {"text_config": _MROPE, "vision_config": {"embed_dim": 32, "hidden_size": 32}},
    "step3p7": {"text_config": {"sliding_window": 4}},
    "vipllava": {"vision_feature_layers": [-2, -3]},
}
ADJUSTED["qwen4_exp"] = {"text_config": ADJUSTED["qwen4_exp_text"]}
"""Further changes that a type needs to be built small."""


def types(head: str) -> list[str]:
    """Return every type that the stock class of a head builds; a class that also reads images counts there alone."""
    seeing = {} if head == "image" else HEADS["image"][1]
    return sorted(kind for kind, name in HEADS[head][1].items() if seeing.get(kind) != name)


def config_of(kind: str, **changes: Any) -> PretrainedConfig:
    """Make a tiny configuration of a type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cls = type(AutoConfig.for_model(kind))
        return cls(**_merge(_shrunk(cls()), {**ADJUSTED.get(kind, {}), **changes}))


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in changes.items():
        inner = merged.get(name)
        merged[name] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _shrunk(config: PretrainedConfig) -> dict[str, Any]:
    """Return the changed fields of a configuration, with those of its parts in nested dictionaries."""
    values: dict[str, Any] = {}
    aliases = config.attribute_map
    for name, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            values[name] = _shrunk(value)
            continue
        if isinstance(value, list | tuple) and name in ("image_size", "patch_size"):
            values[name] = [32 if name == "image_size" else 8] * len(value)
            continue
        if isinstance(value, dict) and "mrope_section" in value:
            values[name] = value | {"mrope_section": [2, 1, 1]}
            continue
        if name in aliases or type(value) not in (int, type(None)):
            continue
        for pattern, small in SHRUNK:
            if re.fullmatch(pattern, name):
                if small is None:
                    values[name] = _token(name, value)
                elif small is KV and type(value) is int:
                    heads = vars(config).get(name.replace("key_value", "attention"))
                    values[name] = 4 if value == heads else min(2, value)
                elif small not in (..., KV) and type(value) is int and (value > 0):
                    values[name] = min(small, value) if small > 1 else small
                break
    return values


def _token(name: str, value: int | None) -> int | None:
    """Return a token id inside the small vocabulary; only padding, beginning and end get ids that occur in a text."""
    if value is None:
        return 0 if name == "pad_token_id" else None
    known = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "sep_token_id": 2}
    return known.get(name, 80 + sum(map(ord, name)) % 18)


def build(kind: str, head: str, config: PretrainedConfig | None = None, **changes: Any) -> PreTrainedModel:
    """Make a tiny random model of a type, the same each time."""
    config = config or config_of(kind, **changes)
    auto = getattr(transformers, HEADS[head][0])
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in auto.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.0f} million parameters are not tiny")
    torch.manual_seed(0)
    model = auto.from_config(config)
    stir(model)
    return model.float().eval()


def stir(model: nn.Module) -> None:
    """Move every weight away from its initial value, except values that stock code sets on each loading."""
    random = torch.Generator().manual_seed(1)
    words = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=random).to(parameter.dtype)
            if id(parameter) in words:
                parameter.copy_(noise)
            elif parameter.ndim >= 2:
                parameter.copy_(noise * (1.2 / max(1, parameter.shape[-1]) ** 0.5))
            else:
                parameter.add_(noise * 0.2)
        for name, buffer in model.named_buffers():
            parent, _, own = name.rpartition(".")
            if buffer.is_floating_point() and own not in model.get_submodule(parent)._non_persistent_buffers_set:
                fixed = buffer == -1.0  # the last of zaya's balancing biases
                buffer.add_(torch.rand(buffer.shape, generator=random).to(buffer.dtype) * 0.2).masked_fill_(fixed, -1.0)
