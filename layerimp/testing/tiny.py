"""Small random models, a tokenizer and batches, made in memory and the same each time."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

BLOCKS = 4
"""The number of blocks of the models."""
VOCAB = 97
"""The size of the models' vocabulary."""

_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
WORDS = (
    "<pad> <s> </s> <unk> good bad yes no the a cat dog sat ran on mat is was it film great awful and of to in he she "
    "they we you what where who why when how big small red blue old new day night house tree bird fish sun moon"
).split()
"""The words of the tokenizer, beside `w0`, `w1` and so on."""


def tiny_model(architecture: str = "llama", *, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """Make a decoder with `BLOCKS` blocks, whose branches are large enough to matter.

    Args:
        architecture: A `model_type` of Transformers whose configuration uses the common field names.
        dtype: The dtype of the weights.
        changes: Further fields of the configuration.
    """
    return _build(AutoModelForCausalLM, architecture, {"num_key_value_heads": 2} | changes, dtype)


def tiny_classifier(*, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """Make a BERT classifier with two classes and `BLOCKS` post-norm blocks; see `tiny_model`."""
    return _build(AutoModelForSequenceClassification, "bert", changes, dtype)


def _build(auto: Any, architecture: str, changes: dict[str, Any], dtype: torch.dtype) -> PreTrainedModel:
    return grown(auto, AutoConfig.for_model(architecture, **(_SIZES | changes)), dtype)


def grown(auto: Any, config: PretrainedConfig, dtype: torch.dtype = torch.float32, **options: Any) -> PreTrainedModel:
    """Make a random model in evaluation mode, with weights that are not near zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = auto.from_config(config, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(5)
    ready: PreTrainedModel = model.to(dtype).eval()
    return ready


def batch(rows: int = 3, tokens: int = 12, *, seed: int = 0) -> dict[str, Tensor]:
    """Make random `input_ids` and an `attention_mask` of ones, both [rows, tokens]."""
    ids = torch.randint(1, VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded_batch(lengths: tuple[int, ...] = (12, 5, 9), *, seed: int = 0, left: bool = False) -> dict[str, Tensor]:
    """Make random rows of the given lengths, padded to the longest [row, token]."""
    unpadded = batch(len(lengths), max(lengths), seed=seed)
    positions = torch.arange(max(lengths))[None]
    sizes = torch.tensor(lengths)[:, None]
    mask = positions >= max(lengths) - sizes if left else positions < sizes
    return {"input_ids": unpadded["input_ids"] * mask, "attention_mask": mask.long()}


def tiny_tokenizer(*, bos: bool = True, eos: bool = True) -> PreTrainedTokenizerFast:
    """Make a word-level tokenizer of `VOCAB` words; it begins each text with BOS if it has that token."""
    words = WORDS + [f"w{i}" for i in range(VOCAB - len(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    special = {"bos_token": "<s>" if bos else None, "eos_token": "</s>" if eos else None}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", **special)
