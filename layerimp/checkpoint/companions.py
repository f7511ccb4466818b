"""Copies what lies beside the weights of a model that reads more than text: processor, templates, settings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp._paths import expanded
from layerimp.blocks.input_forms import vision_part
from layerimp.blocks.modes import quiet
from layerimp.errors import OutputError, cause

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WEIGHTS = ("safetensors", "bin", "pt", "pth", "ckpt", "gguf", "h5", "msgpack", "onnx")
"""The suffixes of files that hold weights."""
_WRITTEN = frozenset({"config.json", "layerimp.json", "README.md"})
"""Files that are written anew for each checkpoint."""
_TEMPLATES = "additional_chat_templates"
"""The directory in which Transformers keeps templates beside the first."""


def write_companions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, directory: Path) -> None:
    """Write a checkpoint's tokenizer, and what else lies beside the weights of a model that sees.

    The files of a model that sees are those of its source, byte for byte; so is its tokenizer if it comes from there.

    Args:
        model: The model.
        tokenizer: The tokenizer, if any.
        directory: The checkpoint.

    Raises:
        OutputError: the files of a model on the hub cannot be fetched.
        OSError: a file cannot be written.
    """
    source = str(model.name_or_path)
    copied = _copied(source, directory) if source and vision_part(model.config) is not None else frozenset()
    if tokenizer is not None and not ("tokenizer_config.json" in copied and tokenizer.name_or_path == source):
        tokenizer.save_pretrained(directory)


def _copied(model: str, directory: Path) -> frozenset[str]:
    """Copy the files of a model beside its weights and its configuration, and return their names."""
    source = expanded(model)
    if not source.is_dir():
        source = _fetched(model)
    names = set()
    for file in _companions(source):
        target = directory / file.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
        names.add(file.name)
    return frozenset(names)


def _companions(source: Path) -> Iterator[Path]:
    """Yield the files beside the weights and the configuration."""
    for file in (*sorted(source.iterdir()), *sorted((source / _TEMPLATES).glob("*"))):
        weights = any(f".{suffix}" in file.suffixes for suffix in _WEIGHTS)
        if file.is_file() and not weights and file.name not in _WRITTEN and not file.name.startswith("."):
            yield file


def _fetched(name: str) -> Path:
    """Return the directory of a model on the hub, without weights."""
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(name, ignore_patterns=[f"*.{suffix}" for suffix in _WEIGHTS]))
    except Exception as error:  # the hub can raise anything
        raise OutputError(f"cannot fetch the files beside the weights of {name!r}: {cause(error)}") from error
