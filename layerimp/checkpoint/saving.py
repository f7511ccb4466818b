"""Writes a model as a stock checkpoint, and reports success only after loading it back and comparing both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from layerimp._paths import expanded
from layerimp.blocks.equivalence import (
    TOLERANCE,
    Probe,
    cached_logits,
    deviation,
    first_difference,
    last_hidden,
    logits,
    probes,
    require_finite,
    share_tensors,
)
from layerimp.blocks.memory import shortage
from layerimp.blocks.modes import holding, quiet
from layerimp.checkpoint.companions import write_companions
from layerimp.checkpoint.staging import staged
from layerimp.defaults import SHARD_SIZE
from layerimp.errors import CheckpointError, OutputError, cause, one_line
from layerimp.models.configuration import auto_class
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import converted, stored_dtype
from layerimp.models.failures import unfit_keys
from layerimp.models.unsupported import refuse_unfit

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    directory: str | Path,
    *,
    verify: bool = True,
    card: str | None = None,
) -> Path:
    """Write a checkpoint that stock `from_pretrained` loads: safetensors, configuration, tokenizer.

    The checkpoint is written beside the target and renamed at the end, so that the target is complete or does not
    exist.

    Args:
        model: The model, pruned or not.
        tokenizer: The tokenizer to save with the model, if any.
        directory: The target, which must not exist.
        verify: Whether to load the checkpoint back with the stock class before it is renamed, and to compare keys,
            weights, logits and cached generation.
        card: The text of a model card (README.md).

    Returns:
        The directory.

    Raises:
        ModelError: the model has quantised weights or unmerged adapters, or reads something beside text and images.
        OutputError: the directory exists or cannot be written, or there is not enough memory to verify the checkpoint.
        CheckpointError: the checkpoint does not load back as the model in memory.
    """
    refuse_unfit(model)
    target = expanded(directory).absolute()
    if verify:
        check_memory(model)
    with staged(target) as stage:
        write(model, tokenizer, stage, verify=verify, card=card)
    return target


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    directory: Path,
    *,
    verify: bool = True,
    card: str | None = None,
) -> None:
    """Write a checkpoint into an existing directory; see `save`."""
    try:
        with quiet(), as_stored(model):
            model.save_pretrained(directory, max_shard_size=SHARD_SIZE)
            write_companions(model, tokenizer, directory)
    except SafetensorError as error:  # usually a full disk, which safetensors does not report as an OSError
        raise OutputError(f"cannot write the weights in {directory.name}: {error}") from error
    except (OSError, OutputError):
        raise
    except Exception as error:  # stock code may refuse a model or tokenizer in any way
        raise CheckpointError(f"{type(model).__name__} refuses to be saved: {cause(error)}") from error
    if card is not None:
        (directory / "README.md").write_text(card, encoding="utf-8")
    if verify:
        check_checkpoint(model, directory)


@contextmanager
def as_stored(model: PreTrainedModel) -> Iterator[None]:
    """A context in which a model's weights are held in the stored dtype.

    If that dtype cannot hold all parameters exactly, because they have been trained since, all stay as they are.
    """
    with ExitStack() as undo:
        undo.callback(setattr, model.config, "dtype", model.config.dtype)
        undo.enter_context(holding(_narrowed(model, stored_dtype(model))))
        yield


def _narrowed(model: PreTrainedModel, stored: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Return the tensors of a model that computes in a wider dtype, each with its values in the stored one.

    None are returned if the stored dtype does not hold a parameter exactly.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    if stored == model.dtype:
        return pairs
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.dtype != model.dtype:
            continue
        if (values := converted(tensor, stored)) is not None:
            pairs.append((tensor, values))
        elif isinstance(tensor, nn.Parameter):  # constants that are not saved need not fit the stored dtype
            return []
    return pairs


def check_checkpoint(model: PreTrainedModel, directory: Path) -> None:
    """Load a checkpoint with the stock class, and compare it with the model in memory.

    Raises:
        CheckpointError: keys are missing or unexpected, a weight differs in any bit, or with equal weights the hidden
            states or the logits differ, with or without a cache.
    """
    auto = getattr(transformers, auto_class(model.config))
    if type(model.config) not in auto._model_mapping:
        raise CheckpointError(
            f"no stock Auto class loads a {model.config.model_type} checkpoint; only {type(model).__name__} itself does"
        )
    try:
        with quiet():
            reloaded, info = auto.from_pretrained(
                directory,
                dtype=model.dtype,
                attn_implementation=_attentions(model.config),
                device_map=_places(model),  # the same kernels on the same devices
                ignore_mismatched_sizes=True,  # so that `info` lists them
                output_loading_info=True,
            )
    except Exception as error:  # stock code may fail in any way
        raise CheckpointError(f"the checkpoint does not load back: {cause(error)}") from error
    reloaded.eval()
    if wrong := unfit_keys(info):
        raise CheckpointError(f"the checkpoint does not load back whole: {wrong}")
    for kind in ("unexpected_keys", "error_msgs"):
        if keys := info.get(kind):
            raise CheckpointError(f"the checkpoint loads back with {kind.replace('_', ' ')}: {sorted(keys)[0]}")
    if type(reloaded) is not type(model):
        raise CheckpointError(f"the checkpoint loads back as {type(reloaded).__name__}, not {type(model).__name__}")
    require_equal(model, reloaded)


def require_equal(model: PreTrainedModel, reloaded: PreTrainedModel) -> None:
    """Compare a reloaded model with the one in memory. Afterwards the reloaded model uses the tensors of the other.

    Raises:
        CheckpointError: a weight differs in any bit, or with equal weights the models compute different values.
        NonFiniteError: the model in memory puts out a NaN or an infinity.
    """
    intact, stack = find_blocks(model), find_blocks(reloaded)
    if len(stack) != len(intact):
        raise CheckpointError(f"the checkpoint loads back with {len(stack)} blocks")
    if path := first_difference(model, reloaded):
        raise CheckpointError(f"the checkpoint's weight {path} is not the one in memory")
    share_tensors(model, reloaded)
    for probe in probes(intact):
        _require_same_outputs(intact, stack, probe)


def _require_same_outputs(intact: BlockStack, reloaded: BlockStack, probe: Probe) -> None:
    """Compare what a checkpoint computes for some inputs with what the model in memory computes.

    Raises:
        CheckpointError: the outputs differ, with or without a cache.
        NonFiniteError: the model in memory puts out a NaN or an infinity.
    """
    kind = type(intact.model).__name__
    for what, answer in (("hidden states", last_hidden), ("logits", logits)):
        try:
            expected, actual = answer(intact, probe=probe), answer(reloaded, probe=probe)
        except Exception as error:  # a model may fail in any way
            raise CheckpointError(f"{kind} cannot run on a few tokens{probe.named}: {one_line(error)}") from error
        require_finite(expected, kind)
        if (off := deviation(expected, actual)) > TOLERANCE:
            raise CheckpointError(f"the checkpoint's {what}{probe.named} are {off:.3g} roundings off those in memory")
    try:
        cached = cached_logits(intact, probe=probe)
    except Exception:  # the model cannot use a cache: there is nothing to compare
        return
    try:
        actual_cached = cached_logits(reloaded, probe=probe)
    except Exception as error:  # a cache may fail in any way
        raise CheckpointError(f"the checkpoint cannot run{probe.named} with a cache: {one_line(error)}") from error
    if cached is None:
        return
    if (off := deviation(cached, actual_cached, intact.model.dtype)) > TOLERANCE:
        raise CheckpointError(
            f"the checkpoint's cached logits{probe.named} are {off:.3g} roundings off those in memory"
        )


def _attentions(config: PretrainedConfig) -> dict[str, Any]:
    """Return how each part of a model computes attention, since the one that reads images may do so in its own way."""
    parts = ((name, getattr(config, name, None)) for name in config.sub_configs)
    return {"": config._attn_implementation, **{name: _attentions(part) for name, part in parts if part is not None}}


def _places(module: nn.Module, path: str = "") -> dict[str, torch.device | int]:
    """Return the device map of a model: the device of each largest part that is on a single device."""
    devices = {tensor.device for tensor in chain(module.parameters(), module.buffers())}
    if len(devices) < 2:
        return {path: _numbered(*devices)} if devices else {}
    prefix = f"{path}." if path else ""
    own = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    places = {prefix + name: _numbered(tensor.device) for name, tensor in own}
    for name, child in module.named_children():
        places |= _places(child, prefix + name)
    return places


def _numbered(device: torch.device) -> torch.device | int:
    """Return the number of a GPU. Accelerate puts inputs on the first of a set, which is GPU 0 only for numbers."""
    return device.index if device.type == "cuda" and device.index is not None else device


def check_memory(model: PreTrainedModel) -> None:
    """Refuse to verify a checkpoint without enough memory for a second copy of the weights.

    Raises:
        OutputError: there is not enough memory on a device.
    """
    tensors = chain(model.parameters(), model.buffers())
    if lacks := shortage((tensor.device, tensor.nbytes) for tensor in tensors):
        raise OutputError(f"verifying the checkpoint {lacks}; skip it with --no-verify")
