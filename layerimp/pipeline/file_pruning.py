"""Prunes the files of a model that is offloaded: kept tensors are copied, and what is left is verified by a probe."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.equivalence import TOLERANCE, deviation, last_hidden, require_finite
from layerimp.blocks.modes import quiet
from layerimp.checkpoint.companions import write_companions
from layerimp.checkpoint.copying import copy_weights, require_same_bits
from layerimp.errors import CheckpointError, SurgeryError, one_line
from layerimp.indices import named
from layerimp.models.dtypes import HALF, stored_dtype
from layerimp.models.fingerprint import REMOTE
from layerimp.models.offloading import OffloadedBlocks, open_offloaded
from layerimp.models.safetensors_files import Stored
from layerimp.models.stored_weights import WeightNames

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import BlockStack
    from layerimp.pipeline.stages import Loaded
    from layerimp.progress import Progress
    from layerimp.recipe import Recipe
    from layerimp.surgery.removal import Removal


def write_pruned(loaded: Loaded, removal: Removal, directory: Path, recipe: Recipe, progress: Progress) -> None:
    """Write the checkpoint of a removal from an offloaded model, and verify it; no more than one block is in memory.

    Args:
        loaded: The intact model.
        removal: What goes, and the configuration of what is left.
        directory: An empty directory.
        recipe: Says how large a file gets, and whether the copied bytes are compared.
        progress: Where to report progress.

    Raises:
        SurgeryError: a model cannot run, or the pruned model does not compute the same as the intact one with the
            removed blocks bypassed.
        CheckpointError: a source file has become shorter, the copied tensors differ from the originals, or the
            checkpoint loads with the wrong number of blocks.
        OutputError: the checkpoint cannot be written.
    """
    tensors = kept_tensors(loaded.stack, removal)
    size = sum(tensor.bytes for tensor in tensors.values())
    with progress.stage("copy the weights", size, unit="bytes") as advance:
        copy_weights(tensors, directory, advance=advance)
    _describe(loaded, removal, directory)
    pruned = _opened(loaded.stack, directory)
    if recipe.verify:
        with progress.stage("compare the copied bytes", size, unit="bytes") as advance:
            require_same_bits(tensors, offloaded_blocks(pruned).tensors, advance)
    with progress.stage("probe both models"):
        _prove(loaded.stack, removal, pruned, directory)


def refuse_own_code(model: PreTrainedModel) -> None:
    """Refuse a model whose code came with it, since its files would be written without that code.

    Raises:
        SurgeryError: the model has code of its own.
    """
    if type(model).__module__.startswith(f"{REMOTE}."):
        raise SurgeryError(f"{type(model).__name__} comes with code of its own, and is not pruned in files")


def kept_tensors(stack: BlockStack, removal: Removal) -> dict[str, Stored]:
    """The tensors in the files of a model that are kept, by the names that they have in the pruned model's files.

    Raises:
        SurgeryError: something beside the blocks is cut, or the name of a tensor does not tell its block.
    """
    shortened = removal.shortened
    if shortened is None:
        return dict(offloaded_blocks(stack).tensors)
    if beside := [*shortened.tables, *shortened.parallel]:
        raise SurgeryError(
            f"{beside[0]} has a part per block and is not cut in files; --no-offload removes {named(removal.removed)}"
        )
    names = WeightNames(shortened.meta_model)
    kept: dict[str, Stored] = {}
    for key, tensor in offloaded_blocks(stack).tensors.items():
        inside = {target for target in tensor.targets if target.startswith(f"{stack.path}.")}
        if not inside:
            if names.targets(key):
                kept[key] = tensor
            continue
        block, _ = _split(stack.path, next(iter(inside)))
        if block in removal.kept:
            kept[_renamed(key, stack.path, inside, removal.kept.index(block), names)] = tensor
    return kept


def _split(blocks: str, target: str) -> tuple[int, str]:
    """The block that a parameter is in, and the parameter's path in the block."""
    number, _, path = target.removeprefix(f"{blocks}.").partition(".")
    return int(number), path


def _renamed(key: str, blocks: str, targets: set[str], new: int, names: WeightNames) -> str:
    """The name of a tensor once its block has another index: the one that becomes the same parameters there."""
    old, _ = _split(blocks, next(iter(targets)))
    wanted = {f"{blocks}.{new}.{_split(blocks, target)[1]}" for target in targets}
    parts = key.split(".")
    for at, part in enumerate(parts):
        if part == str(old):
            candidate = ".".join([*parts[:at], str(new), *parts[at + 1 :]])
            if names.targets(candidate) == wanted:
                return candidate
    raise SurgeryError(f"the name of the tensor {key} does not tell its block; --no-offload removes blocks in memory")


def _describe(loaded: Loaded, removal: Removal, directory: Path) -> None:
    """Write what lies beside the weights: the configuration, the tokenizer, the settings of generation."""
    config = loaded.model.config if removal.shortened is None else removal.shortened.config
    source = offloaded_blocks(loaded.stack).directory
    with quiet():
        config.architectures, config.dtype = [type(loaded.model).__name__], stored_dtype(loaded.model)
        config.save_pretrained(directory)
        write_companions(loaded.model, loaded.tokenizer, directory)
    if (settings := source / "generation_config.json").is_file():
        shutil.copy(settings, directory)


def _prove(stack: BlockStack, removal: Removal, pruned: BlockStack, directory: Path) -> None:
    """Compare the pruned model's output with that of the intact model when the removed blocks are bypassed.

    If the outputs of half-precision models differ in any bit, both models are loaded again and compared in float32.

    Raises:
        CheckpointError: the checkpoint loads with the wrong number of blocks.
        SurgeryError: a model cannot run, or the outputs differ by more than rounding.
    """
    if len(pruned) != len(removal.kept):
        raise CheckpointError(f"the checkpoint loads back with {len(pruned)} blocks, and not {len(removal.kept)}")
    off = _deviation(stack, removal, pruned)
    if off and stack.model.dtype in HALF:
        intact = _opened(stack, offloaded_blocks(stack).directory, torch.float32)
        off = _deviation(intact, removal, _opened(stack, directory, torch.float32))
    if off > TOLERANCE:
        raise SurgeryError(
            f"{type(stack.model).__name__} computes differently without {named(removal.removed)} than past it "
            f"({off:.2g} roundings off): what its blocks do depends on their position"
        )


def _deviation(stack: BlockStack, removal: Removal, pruned: BlockStack) -> float:
    """Return the largest difference between the outputs of the two models for the removal's probes, in roundings."""
    kind, off = type(stack.model).__name__, 0.0
    try:
        for probe in removal.probes:
            expected = last_hidden(stack, removal.removed, probe)
            require_finite(expected, f"{kind} past {named(removal.removed)}")
            off = max(off, deviation(expected, last_hidden(pruned, probe=probe)))
        return off
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise SurgeryError(f"{kind} cannot run without {named(removal.removed)}: {one_line(error)}") from error


def _opened(stack: BlockStack, directory: Path, dtype: torch.dtype | None = None) -> BlockStack:
    """A checkpoint like that of a model, offloaded."""
    model: PreTrainedModel = stack.model
    return open_offloaded(directory, dtype=dtype or model.dtype, device=stack.device)


def offloaded_blocks(stack: BlockStack) -> OffloadedBlocks:
    """The blocks of an offloaded model as what reads them from its files."""
    residency: Any = stack.residency
    assert isinstance(residency, OffloadedBlocks)
    return residency
