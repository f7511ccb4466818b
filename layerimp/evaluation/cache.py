"""Keeps an intact model's metrics, under a hash of everything that can change them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerimp._version import __version__
from layerimp.defaults import ORIGINAL
from layerimp.evaluation.packing import packed, unpacked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.evaluator import Evaluator, Metric

CACHE_VARIABLE = "LAYERIMP_CACHE"
FORMAT = "hashes"
"""In every key: what was kept without its documents and their hashes is measured again."""


def kept_as(evaluator: Evaluator, who: str) -> str | None:
    """What an evaluator's metrics are kept under, beside the model's fingerprint.

    None where they are not: those of a pruned model, what it costs, and where the evaluator has no fingerprint.
    """
    return evaluator.fingerprint() if who == ORIGINAL and evaluator.kind == "quality" else None


def model_fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """A hash of the weights, the configuration, the tokenizer, the dtype, the kind of device, and the libraries."""
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
        # How it last padded and cut is no property of the tokenizer.
        rules = {key: v for key, v in json.loads(backend.to_str()).items() if key not in ("padding", "truncation")}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return [type(tokenizer).__name__, rules, special, tokenizer.chat_template, tokenizer.model_max_length]


class MetricsCache:
    """Metrics of intact models, one JSON file per key.

    Args:
        directory: Where they lie; by default `$LAYERIMP_CACHE`, else `~/.cache/layerimp`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        default = os.environ.get(CACHE_VARIABLE) or "~/.cache/layerimp"
        self.directory = Path(os.path.expanduser(directory or default)) / "metrics"

    def _path(self, *parts: str) -> Path:
        key = json.dumps((FORMAT, *parts)).encode()
        return self.directory / f"{hashlib.blake2b(key, digest_size=20).hexdigest()}.json"

    def get(self, *parts: str) -> list[Metric] | None:
        """The metrics under the key that `parts` make, or None."""
        try:
            return unpacked(json.loads(self._path(*parts).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, LookupError, zlib.error):
            return None

    def put(self, metrics: list[Metric], *parts: str) -> None:
        """Keep metrics. A cache that cannot be written is no cache, and no error."""
        path = self._path(*parts)
        document = json.dumps(packed(metrics))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as directory:
                Path(directory, path.name).write_text(document, encoding="utf-8")
                Path(directory, path.name).replace(path)
        except OSError:
            return
