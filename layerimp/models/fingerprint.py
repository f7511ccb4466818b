"""The fingerprint of a model: a hash of everything that can change its results."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from layerimp._version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def model_fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return a hash of the weights, configuration, tokenizer, dtype, kind of device, and versions of libraries."""
    digest = hashlib.blake2b(digest_size=20)
    facts: dict[str, Any] = {
        "class": type(model).__name__,
        "config": {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"},
        "generation": generation.to_dict() if (generation := getattr(model, "generation_config", None)) else None,
        "attention": getattr(model.config, "_attn_implementation", None),
        "device": model.device.type,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")}
        | {"layerimp": __version__},
    }
    if tokenizer is not None:
        facts["tokenizer"] = _tokenizer_facts(tokenizer)
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = sorted(tokenizer.get_vocab().items())
    else:
        # The settings of the last call, for padding and truncation, are not a property of the tokenizer.
        rules = {key: v for key, v in json.loads(backend.to_str()).items() if key not in ("padding", "truncation")}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return [type(tokenizer).__name__, rules, special, tokenizer.chat_template, tokenizer.model_max_length]
