"""Writes a model as a stock checkpoint, and reports success only once it has loaded back as what was in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError

from layerimp.blocks.equivalence import (
    TOLERANCE,
    cached_logits,
    deviation,
    first_difference,
    last_hidden,
    logits,
    require_finite,
    share_tensors,
)
from layerimp.blocks.memory import free_bytes
from layerimp.blocks.modes import quiet
from layerimp.checkpoint.staging import staged
from layerimp.errors import CheckpointError, OutputError, cause, one_line
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import holds, stored_dtype
from layerimp.models.failures import unfit_keys
from layerimp.models.loading import auto_class
from layerimp.models.unsupported import refuse_unfit
from layerimp.recipe import checked_size

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.checkpoint.record import Record


SHARD = "5GB"
"""How large a file of weights gets, of a model that lies on several devices: none has to hold it whole."""


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    directory: str | Path,
    *,
    verify: bool = True,
    card: str | None = None,
    max_shard_size: int | str | None = None,
) -> Path:
    """Write a checkpoint that stock `from_pretrained` loads: safetensors, configuration, tokenizer.

    It is written beside its target and renamed at the end, so that the target holds all of it or does not exist.

    Args:
        model: The model, pruned or not.
        tokenizer: Saved with it, where given.
        directory: The target; must not exist.
        verify: Load it back with the stock class first, and compare: keys, weights, logits, cached generation.
        card: The text of a model card (README.md).
        max_shard_size: How large a file of weights gets, in bytes or such as `5GB`; by default as Transformers does,
            and `SHARD` for a model that lies on several devices.

    Returns:
        The directory.

    Raises:
        ModelError: the model has quantised weights or unmerged adapters, or reads more than text.
        OptionError: that is no size.
        OutputError: the directory exists or cannot be written, or the memory to verify it is not there.
        CheckpointError: what was written does not load back as what is in memory.
    """
    refuse_unfit(model)
    target = Path(directory).expanduser().absolute()
    if verify:
        check_memory(model)
    with staged(target) as stage:
        write(model, tokenizer, stage, verify=verify, card=card, max_shard_size=max_shard_size)
    return target


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    directory: Path,
    *,
    verify: bool = True,
    card: str | None = None,
    record: Record | None = None,
    max_shard_size: int | str | None = None,
) -> None:
    """Write a checkpoint into an existing directory, with a record of what it was made from; see `save`."""
    shards = _shards(model, max_shard_size)
    try:
        with quiet(), as_stored(model):
            model.save_pretrained(directory, **shards)
            if tokenizer is not None:
                tokenizer.save_pretrained(directory)
    except SafetensorError as error:  # the disk is full, mostly; it comes as no OSError
        raise OutputError(f"cannot write the weights in {directory.name}: {error}") from error
    except OSError:
        raise
    except Exception as error:  # whatever stock code has against this model or tokenizer
        raise CheckpointError(f"{type(model).__name__} refuses to be saved: {cause(error)}") from error
    if card is not None:
        (directory / "README.md").write_text(card, encoding="utf-8")
    if record is not None:
        record.write(directory)
    if verify:
        check_checkpoint(model, directory)


@contextmanager
def as_stored(model: PreTrainedModel) -> Iterator[None]:
    """Hold a model's weights in the dtype that they are stored in, and then as they were.

    Where that dtype cannot hold all parameters exactly, since they were trained meanwhile, all stay as they are.
    """
    compute, stored = model.dtype, stored_dtype(model)
    wide = [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.dtype == compute]
    with ExitStack() as undo:
        undo.callback(setattr, model.config, "dtype", model.config.dtype)
        if stored != compute and all(holds(stored, p) for p in model.parameters() if p.dtype == compute):
            for tensor in wide:
                if holds(stored, tensor):  # constants that no checkpoint holds need not be
                    undo.callback(setattr, tensor, "data", tensor.data)
                    tensor.data = tensor.data.to(stored)
        yield


def _shards(model: PreTrainedModel, size: int | str | None) -> dict[str, Any]:
    """The largest size of a file of weights, as Transformers takes it; empty where it decides itself."""
    if isinstance(size, str):
        size = checked_size(size)
    if size is None and len({parameter.device for parameter in model.parameters()}) > 1:
        size = SHARD
    return {} if size is None else {"max_shard_size": size}


def check_checkpoint(model: PreTrainedModel, directory: Path) -> None:
    """Load a checkpoint with the stock class, and compare it with the model in memory.

    Raises:
        CheckpointError: keys are missing or unexpected, a weight differs in any bit, or with equal weights other
            hidden states or logits come out, cached or not.
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
                attn_implementation=model.config._attn_implementation,
                device_map=_places(model),  # the same kernels on the same devices
                ignore_mismatched_sizes=True,  # for `info` to tell of them
                output_loading_info=True,
            )
    except Exception as error:  # whatever stock code makes of it
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
    """Compare a model that was loaded back with the one in memory; the former then computes with the latter's weights.

    Raises:
        CheckpointError: a weight differs in any bit, or with equal weights something else is computed.
        NonFiniteError: the model in memory puts out a NaN or an infinity.
    """
    intact, stack = find_blocks(model), find_blocks(reloaded)
    if len(stack) != len(intact):
        raise CheckpointError(f"the checkpoint loads back with {len(stack)} blocks")
    if path := first_difference(model, reloaded):
        raise CheckpointError(f"the checkpoint's weight {path} is not the one in memory")
    share_tensors(model, reloaded)
    for what, answer in (("hidden states", last_hidden), ("logits", logits)):
        try:
            expected, found = answer(intact), answer(stack)
        except Exception as error:  # whatever a model makes of a few tokens
            raise CheckpointError(f"{type(model).__name__} cannot run on a few tokens: {one_line(error)}") from error
        require_finite(expected, type(model).__name__)
        if (off := deviation(expected, found)) > TOLERANCE:
            raise CheckpointError(f"the checkpoint's {what} are {off:.3g} roundings off those in memory")
    _check_cache(intact, stack)


def _check_cache(intact: BlockStack, reloaded: BlockStack) -> None:
    """Whether a checkpoint generates with a cache what the model in memory does; some stock models cannot use one."""
    try:
        expected = cached_logits(intact)
    except Exception:  # then there is nothing to keep
        return
    try:
        found = cached_logits(reloaded)
    except Exception as error:  # whatever a cache makes of the blocks that are left
        raise CheckpointError(f"the checkpoint cannot run with a cache: {one_line(error)}") from error
    if expected is None:
        return
    if (off := deviation(expected, found, intact.model.dtype)) > TOLERANCE:
        raise CheckpointError(f"the checkpoint's cached logits are {off:.3g} roundings off those in memory")


def _places(module: nn.Module, path: str = "") -> dict[str, torch.device | int]:
    """Where a model lies, as a device map: the device of each of its largest parts that lie on one device."""
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
    """A GPU by its number: accelerate gives inputs to the first of a set, which is GPU 0 only among numbers."""
    return device.index if device.type == "cuda" and device.index is not None else device


def check_memory(model: PreTrainedModel) -> None:
    """Verifying needs a second copy of the weights."""
    needs: Counter[torch.device] = Counter()
    for tensor in chain(model.parameters(), model.buffers()):
        needs[tensor.device] += tensor.nbytes
    for device, need in needs.items():
        free = free_bytes(device)
        if need * 1.1 > free:
            raise OutputError(
                f"verifying the checkpoint needs {need * 1.1 / 2**30:.1f} GiB more memory on {device}, "
                f"{free / 2**30:.1f} GiB are free; skip it with --no-verify"
            )
