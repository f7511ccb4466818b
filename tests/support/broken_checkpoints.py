"""Checkpoints that cannot be loaded, each for a different reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.tiny import saved, tiny

from layerimp.testing import BLOCKS


def pickled(tmp_path: Path) -> Path:
    directory = tmp_path / "pickled"
    directory.mkdir()
    (directory / "config.json").write_text(tiny().config.to_json_string())
    (directory / "pytorch_model.bin").write_bytes(b"pickle")
    return directory


def blockless(tmp_path: Path) -> Path:
    directory = tmp_path / "blockless"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "nothing-known"}')
    (directory / "model.safetensors").write_bytes(b"")
    return directory


def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def copied(directory: Path, **changes: Any) -> Path:
    """The tiny Llama in a folder, with other fields in its configuration."""
    saved(tiny("llama"), directory)
    config = json.loads((directory / "config.json").read_text()) | changes
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def truncated(tmp_path: Path) -> Path:
    directory = copied(tmp_path / "truncated")
    (directory / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes()[:5000])
    return directory


def with_fields(**fields: Any) -> Callable[[Path], Path]:
    return lambda tmp_path: copied(tmp_path / "changed", **fields)


def without_a_block(tmp_path: Path) -> Path:
    return copied(tmp_path / "without", num_hidden_layers=BLOCKS + 1)


def with_a_block_more(tmp_path: Path) -> Path:
    return copied(tmp_path / "more", num_hidden_layers=BLOCKS - 1)
