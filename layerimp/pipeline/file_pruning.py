"""Prunes the files of a model that is offloaded: kept tensors are copied, and what is left is proved by a probe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.equivalence import TOLERANCE, deviation, last_hidden, require_finite
from layerimp.blocks.middle import in_mlp
from layerimp.blocks.modes import quiet
from layerimp.checkpoint.copying import copy_weights, require_same_bits
from layerimp.errors import CheckpointError, SurgeryError, one_line
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import HALF, stored_dtype
from layerimp.models.offloading import OffloadedBlocks, open_offloaded
from layerimp.models.safetensors_files import Stored
from layerimp.models.sizing import shapes_only
from layerimp.models.stored_weights import WeightNames
from layerimp.pipeline.checkpoints import checkpoint_path
from layerimp.pipeline.pruning import Choice, check_room
from layerimp.pipeline.resolve import check_plans
from layerimp.pipeline.run import PrunedModel, StageResults
from layerimp.report.results.contenders import Contender
from layerimp.report.results.models import Size
from layerimp.steps import named
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import BlockStack
    from layerimp.pipeline.run import Run
    from layerimp.pipeline.stages import Loaded
    from layerimp.progress import Progress
    from layerimp.recipe import Recipe
    from layerimp.surgery.removal import Removal


def prune_files(run: Run, choice: Choice) -> StageResults:
    """Write the checkpoint of each plan of an offloaded model; see `write_pruned`. Without a stage nothing is written.

    Returns:
        The results, with the pruned models on the meta device, the checkpoints and their sizes.

    Raises:
        OptionError: a plan removes nothing, is for another number of blocks, or has a label that cannot be one; or
            there is none.
        SurgeryError: blocks cannot be removed exactly.
        OutputError: there is no room for the checkpoints, or they cannot be written.
        NonFiniteError: a weight is a NaN or an infinity.
    """
    loaded = run.loaded
    check_plans(choice.plans, len(loaded.stack))
    if getattr(loaded.model.config, "auto_map", None):
        raise SurgeryError(f"{type(loaded.model).__name__} comes with code of its own, and is not pruned in files")
    models: dict[str, PrunedModel] = {}
    tensors: dict[str, dict[str, Stored]] = {}
    for label, plan in choice.plans.items():
        with run.selection.excusing(label):
            removal = prepare(loaded.stack, plan.blocks)
            tensors[label] = kept_tensors(loaded.stack, removal)
            beside = shapes_only(loaded.model, removal.shortened.config if removal.shortened else None)
            size = Size.of(find_blocks(beside))
            reached = choice.reached.get(label, ())
            models[label] = PrunedModel(Contender(label), plan, size, removal, beside, reached=reached)
    run.selection.need_any()
    stages = StageResults(choice.importance, models)
    if run.stage is None:
        return stages
    check_room(run, sum(tensor.bytes for kept in tensors.values() for tensor in kept.values()))
    with run.progress.stage("check the weights that were not read"):
        _offloaded(loaded.stack).refuse_non_finite_rest()
    written: dict[str, PrunedModel] = {}
    for label, model in models.items():
        directory = run.stage / checkpoint_path(label)
        directory.mkdir(parents=True)
        size = Size.of(write_pruned(loaded, model.removal, tensors[label], directory, run.recipe, run.progress))
        written[label] = replace(model, size=size)
    return replace(stages, models=written, checkpoints={label: checkpoint_path(label) for label in written})


def write_pruned(
    loaded: Loaded,
    removal: Removal,
    tensors: Mapping[str, Stored],
    directory: Path,
    recipe: Recipe,
    progress: Progress,
) -> BlockStack:
    """Write the checkpoint of a removal from an offloaded model, and prove it; no more than one block is in memory.

    Args:
        loaded: The intact model.
        removal: What goes, and the configuration of what is left.
        tensors: The tensors that stay; see `kept_tensors`.
        directory: An empty directory.
        recipe: Says how large a file gets, and whether the copied bytes are compared.
        progress: Where to report progress.

    Returns:
        The blocks of the pruned model, offloaded from what was written.

    Raises:
        SurgeryError: a model cannot run, or the pruned model does not compute the same as the intact one with the
            removed steps bypassed.
        CheckpointError: a source file has become shorter, the copied tensors differ from the originals, or the
            checkpoint loads with the wrong number of blocks.
        OutputError: the checkpoint cannot be written.
    """
    size = sum(tensor.bytes for tensor in tensors.values())
    with progress.stage("copy the weights", size, unit_bytes=1) as advance:
        copy_weights(tensors, directory, max_shard_size=recipe.max_shard_size, advance=advance)
    _describe(loaded, removal, directory)
    pruned = _opened(loaded.stack, directory)
    if recipe.verify:
        with progress.stage("compare the copied bytes", size, unit_bytes=1) as advance:
            require_same_bits(tensors, _offloaded(pruned).tensors, advance)
    with progress.stage("probe both models"):
        _prove(loaded.stack, removal, pruned, directory)
    return pruned


def kept_tensors(stack: BlockStack, removal: Removal) -> dict[str, Stored]:
    """The tensors in the files of a model that are kept, by the names that they have in the pruned model's files.

    Raises:
        SurgeryError: something beside the blocks is cut, or the name of a tensor does not tell its block.
    """
    shortened = removal.shortened
    if shortened is None:
        return dict(_offloaded(stack).tensors)
    if beside := [*shortened.tables, *shortened.parallel]:
        raise SurgeryError(
            f"{beside[0]} has a part per block and is not cut in files; --no-offload removes {named(removal.steps)}"
        )
    names = WeightNames(shortened.meta_model)
    kept: dict[str, Stored] = {}
    for key, tensor in _offloaded(stack).tensors.items():
        inside = {target for target in tensor.targets if target.startswith(f"{stack.path}.")}
        if not inside:
            if names.targets(key):
                kept[key] = tensor
            continue
        for new in _places(stack, removal, inside):
            kept[_renamed(key, stack.path, inside, new, names)] = tensor
    return kept


def _places(stack: BlockStack, removal: Removal, targets: set[str]) -> Iterator[int]:
    """The new indices of the block that a tensor belongs to; none where its block, or its half of it, goes."""
    old, path = _split(stack.path, next(iter(targets)))
    for new, (attention, mlp) in enumerate(removal.kept):
        composed = attention != mlp
        owner = mlp if composed and in_mlp(path, removal.halves[mlp].mlp) else attention
        if owner == old:
            yield new


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
    source = _offloaded(loaded.stack).directory
    with quiet():
        config.architectures, config.dtype = [type(loaded.model).__name__], stored_dtype(loaded.model)
        config.save_pretrained(directory)
        loaded.tokenizer.save_pretrained(directory)
    if (settings := source / "generation_config.json").is_file():
        shutil.copy(settings, directory)


def _prove(stack: BlockStack, removal: Removal, pruned: BlockStack, directory: Path) -> None:
    """Compare the pruned model's output with that of the intact model when the removed steps are bypassed.

    If the outputs of half-precision models differ in any bit, both models are loaded again and compared in float32.

    Raises:
        CheckpointError: the checkpoint loads with the wrong number of blocks.
        SurgeryError: a model cannot run, or the outputs differ by more than rounding.
    """
    if len(pruned) != len(removal.kept):
        raise CheckpointError(f"the checkpoint loads back with {len(pruned)} blocks, and not {len(removal.kept)}")
    off = _deviation(stack, removal, pruned)
    if off and stack.model.dtype in HALF:
        intact = _opened(stack, _offloaded(stack).directory, torch.float32)
        off = _deviation(intact, removal, _opened(stack, directory, torch.float32))
    if off > TOLERANCE:
        raise SurgeryError(
            f"{type(stack.model).__name__} computes differently without {named(removal.steps)} than past it "
            f"({off:.2g} roundings off): what its blocks do depends on their position"
        )


def _deviation(stack: BlockStack, removal: Removal, pruned: BlockStack) -> float:
    """Return the largest difference between the outputs of the two models for a few tokens, in roundings."""
    kind = type(stack.model).__name__
    try:
        expected = last_hidden(stack, removal.steps)
        require_finite(expected, f"{kind} past {named(removal.steps)}")
        return deviation(expected, last_hidden(pruned))
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise SurgeryError(f"{kind} cannot run without {named(removal.steps)}: {one_line(error)}") from error


def _opened(stack: BlockStack, directory: Path, dtype: torch.dtype | None = None) -> BlockStack:
    """A checkpoint like that of a model, offloaded."""
    model: PreTrainedModel = stack.model
    return open_offloaded(directory, dtype=dtype or model.dtype, device=stack.device)


def _offloaded(stack: BlockStack) -> OffloadedBlocks:
    residency: Any = stack.residency
    assert isinstance(residency, OffloadedBlocks)
    return residency
