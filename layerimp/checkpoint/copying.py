"""Writes a checkpoint from tensors in the files of another one, under other names; nothing is held in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import save_file

from layerimp.blocks.equivalence import same_bits
from layerimp.defaults import SHARD_SIZE
from layerimp.errors import CheckpointError, OutputError, one_line
from layerimp.models.safetensors_files import Stored, mapped


def copy_weights(tensors: Mapping[str, Stored], directory: Path, *, advance: Callable[[int], None]) -> None:
    """Write safetensors files that hold tensors of other files.

    Args:
        tensors: The tensors, by the names that they get.
        directory: Where the files are written; it exists.
        advance: Called with the number of bytes that were copied.

    Raises:
        OutputError: a file cannot be written.
        ModelError: a file that is read is broken.
    """
    weights = mapped(tensors)
    shards = split_torch_state_dict_into_shards(weights, max_shard_size=SHARD_SIZE)
    try:
        for name, keys in shards.filename_to_tensors.items():
            save_file({key: weights[key] for key in keys}, directory / name, {"format": "pt"})
            advance(sum(tensors[key].bytes for key in keys))
        if shards.is_sharded:
            index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
            (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the weights in {directory.name}: {one_line(error)}") from error


def require_same_bits(
    tensors: Mapping[str, Stored], copies: Mapping[str, Stored], advance: Callable[[int], None]
) -> None:
    """Compare copied tensors with those that they were copied from.

    Args:
        tensors: The tensors that were copied, by the names that they got.
        copies: The tensors in the files that were written, by name.
        advance: Called with the number of bytes that were compared.

    Raises:
        CheckpointError: a tensor is missing, or differs in any bit; names it.
    """
    originals, copied = mapped(tensors), mapped(copies)
    for key, original in originals.items():
        if key not in copied or not same_bits(original, copied[key]):
            raise CheckpointError(f"the checkpoint's weight {key} is not the one that was copied")
        advance(original.nbytes)
    if strange := sorted(copied.keys() - originals.keys()):
        raise CheckpointError(f"the checkpoint holds a weight {strange[0]} that was not copied")
