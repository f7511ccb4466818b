"""Keeps an intact model's metrics, under a hash of everything that can change them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from layerimp import __version__
from layerimp.evaluator import Metric

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CACHE_VARIABLE = "LAYERIMP_CACHE"


def model_fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """A hash of the weights, the configuration, the tokenizer, the dtype, the kind of device, and the libraries."""
    digest = hashlib.blake2b(digest_size=20)
    facts = {
        "class": type(model).__name__,
        "config": model.config.to_dict(),
        "attention": getattr(model.config, "_attn_implementation", None),
        "device": model.device.type,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")}
        | {"layerimp": __version__},
    }
    if tokenizer is not None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        facts["tokenizer"] = [
            type(tokenizer).__name__,
            backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
            {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        ]
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class MetricsCache:
    """Metrics of intact models, one JSON file per key.

    Args:
        directory: Where they lie; by default `$LAYERIMP_CACHE`, else `~/.cache/layerimp`.
    """

    def __init__(self, directory: Path | None = None) -> None:
        default = os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "layerimp"
        self.directory = Path(directory or default) / "metrics"

    def _path(self, *parts: str) -> Path:
        return self.directory / f"{hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()}.json"

    def get(self, *parts: str) -> list[Metric] | None:
        """The metrics under the key that `parts` make, or None."""
        try:
            return [Metric(**record) for record in json.loads(self._path(*parts).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return None

    def put(self, metrics: list[Metric], *parts: str) -> None:
        """Keep metrics. A cache that cannot be written is no cache, and no error."""
        path = self._path(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
                json.dump([asdict(metric) for metric in metrics], file)
            Path(file.name).replace(path)
        except OSError:
            return
