"""Tiny random models of many architectures, and a tokenizer, made on the spot."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

BLOCKS = 4
VOCAB = 97

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
    "qwen2": _LLAMA,
    "qwen3": _LLAMA | {"head_dim": 8},
    "qwen3_moe": _LLAMA | {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    "gemma2": _LLAMA | {"head_dim": 8},
    "gemma3_text": _LLAMA | {"head_dim": 8},
    "phi3": _LLAMA,
    "stablelm": _LLAMA,
    "stablelm:parallel": _LLAMA | {"use_parallel_residual": True},
    "gpt2": _GPT2,
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
}
ALL = DECODERS | ENCODERS
EAGER_ONLY = frozenset({"gemma2", "bloom", "gpt_neo"})
"""Architectures that refuse sdpa."""
POST_NORM = frozenset(ENCODERS)
EXPERTS = frozenset({"mixtral", "qwen3_moe"})
"""Architectures whose MLP has no single down projection."""


def tiny(
    name: str = "llama", *, attention: str | None = None, dtype: torch.dtype = torch.float32, **changes: Any
) -> PreTrainedModel:
    """A random model of 4 blocks, the same each time; its branches are large enough to matter."""
    kwargs = {} if attention is None else {"attn_implementation": attention}
    config = AutoConfig.for_model(name.split(":")[0], **{**ALL[name], **changes})
    auto = AutoModelForSequenceClassification if name in ENCODERS else AutoModelForCausalLM
    torch.manual_seed(0)
    model = auto.from_config(config, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(5)
    return model.to(dtype).eval()


def batch(rows: int = 3, tokens: int = 12, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random ids without padding."""
    ids = torch.randint(1, VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded_batch(
    lengths: tuple[int, ...] = (12, 5, 9), *, seed: int = 0, left: bool = False
) -> dict[str, torch.Tensor]:
    """Random ids, padded."""
    made = batch(len(lengths), max(lengths), seed=seed)
    positions = torch.arange(max(lengths))[None]
    sizes = torch.tensor(lengths)[:, None]
    mask = positions >= max(lengths) - sizes if left else positions < sizes
    return {"input_ids": made["input_ids"] * mask, "attention_mask": mask.long()}


WORDS = (
    "<pad> <s> </s> <unk> good bad yes no the a cat dog sat ran on mat is was it film great awful and of to in he she "
    "they we you what where who why when how big small red blue old new day night house tree bird fish sun moon"
).split()


def tiny_tokenizer(*, bos: bool = True, eos: bool = True, pad: bool = True) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over fewer words than `VOCAB`; it opens each text with BOS, where it has one."""
    words = WORDS + [f"w{i}" for i in range(VOCAB - len(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    special = {"bos_token": "<s>" if bos else None, "eos_token": "</s>" if eos else None}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>" if pad else None, **special
    )
