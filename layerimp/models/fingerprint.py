"""The fingerprint of a model: a hash of everything that can change its results."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch

from layerimp._version import __version__

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_STOCK = sys.stdlib_module_names | {"torch", "transformers", "tokenizers"}
"""The standard library, and packages whose versions stand for their code."""
REMOTE = "transformers_modules"
"""The package in which Transformers puts code that comes with a model."""


def model_fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Return a hash of the weights, configuration, tokenizer, dtype, kind of device, own code, and library versions."""
    digest = hashlib.blake2b(digest_size=20)
    facts: dict[str, Any] = {
        "class": type(model).__name__,
        "code": sorted({code for kind in set(map(type, model.modules())) for code in _own_code(kind)}),
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
    first: dict[int, str] = {}
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if (known := first.setdefault(id(tensor), name)) != name:  # a tied weight is read once
            digest.update(f" is {known}".encode())
        else:
            digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _own_code(kind: type) -> Iterator[str]:
    """Yield hashes of the source of a class and its bases, as far as they come from outside Transformers and torch.

    Code that comes with a model lies in a folder of its own, and all files in this folder count.
    """
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if package in _STOCK:
            continue
        try:
            file = Path(inspect.getfile(base))
        except (TypeError, OSError):  # such as a class from a prompt: its source is not known
            yield uuid4().hex
            continue
        for source in sorted(file.parent.glob("*.py")) if package == REMOTE else (file,):
            yield hashlib.blake2b(source.read_bytes(), digest_size=20).hexdigest()


def _tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: Any = sorted(tokenizer.get_vocab().items())
    else:
        # The settings of the last call, for padding and truncation, are not a property of the tokenizer.
        rules = {key: v for key, v in json.loads(backend.to_str()).items() if key not in ("padding", "truncation")}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    code = sorted(set(_own_code(type(tokenizer))))
    return [type(tokenizer).__name__, code, rules, special, tokenizer.chat_template, tokenizer.model_max_length]
