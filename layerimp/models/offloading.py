"""Loads a model whose blocks stay in their files until they are needed, so that the model may be larger than memory."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from accelerate import init_empty_weights

from layerimp._paths import expanded
from layerimp.blocks.modes import quiet
from layerimp.defaults import STARTER
from layerimp.errors import ModelError
from layerimp.models.configuration import auto_class, configuration, source_of, stored_in
from layerimp.models.devices import device_named
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import dtype_named, emulation_note, is_native, note_stored
from layerimp.models.failures import check_weights, unloadable
from layerimp.models.safetensors_files import WHOLE, indexed
from layerimp.models.stored_weights import StoredWeights
from layerimp.models.unsupported import refuse_config
from layerimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from layerimp.blocks.stack import BlockStack


def open_offloaded(
    model: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: Progress = SILENT,
) -> BlockStack:
    """Load a model without the weights of its blocks.

    The returned stack loads the weights of a block into memory when they are needed; see `Residency`. Only the parts
    that a sweep `Forward` runs have weights: the head of the model has none.

    Args:
        model: A directory, the name of a model on the hub, or the name of one that a plugin ships.
        dtype: The dtype to compute in; by default as in `layerimp.load`.
        device: The device to compute on; by default the first GPU, else the CPU.
        trust_remote_code: Whether Python code that comes with the model may run.
        progress: Where to report that the model computes in another dtype than the stored one.

    Raises:
        ModelError: the model cannot be loaded, or not block by block; the error says why.
        NonFiniteError: a number in the configuration, or a weight outside the blocks, is a NaN or an infinity.
        OptionError: there is no such dtype or device.
    """
    place, wanted = device_named(device), dtype_named(dtype)
    config = configuration(model, trust_remote_code=trust_remote_code)
    refuse_config(config, f"the model {str(model)!r}")
    directory = _directory(source_of(model))
    stored = stored_in(directory, config)
    computed_in = _default_dtype(model, stored, place, progress) if wanted == "auto" else wanted
    stack = find_blocks(_without_parameters(model, config, computed_in, trust_remote_code))
    weights = StoredWeights(directory, stack.model, computed_in, place)
    _check_files(stack.model, weights)
    blocks = OffloadedBlocks(stack, weights)
    _put_the_rest(stack, weights, place)
    if stored not in (None, computed_in):  # pruning copies the files, and so keeps their dtype
        note_stored(stack.model, stored)
    return replace(stack, residency=blocks)


def _directory(source: str) -> Path:
    """Return the directory of a model; a model on the hub is downloaded first if necessary."""
    path = expanded(source)
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            directory = Path(snapshot_download(source, allow_patterns=["*.json"]))
            # A repository may hold the weights once more, in files for other software.
            snapshot_download(source, allow_patterns=sorted({*indexed(directory).values()}) or [WHOLE])
            return directory
    except Exception as error:  # the hub can raise anything
        raise unloadable(source, error) from error


def _default_dtype(
    model: str | Path, stored: torch.dtype | None, device: torch.device, progress: Progress
) -> torch.dtype:
    """Return the dtype that a model computes in by default; as `float32_stands_in`, but memory does not matter here."""
    if stored is None or str(model) == STARTER:
        return torch.float32
    if device.type == "cpu" and not is_native(stored):
        progress.note(emulation_note(model, stored))
        return torch.float32
    return stored


def _without_parameters(
    model: str | Path, config: PretrainedConfig, dtype: torch.dtype, trust_remote_code: bool
) -> PreTrainedModel:
    """Build a model with its parameters on the meta device. Buffers, such as tables of positions, are computed."""
    try:
        with quiet(), init_empty_weights(include_buffers=False):
            auto: Any = getattr(transformers, auto_class(config))
            built: PreTrainedModel = auto.from_config(
                copy.deepcopy(config), dtype=dtype, trust_remote_code=trust_remote_code
            )
        # Loading computes the buffers once more, in the default dtype, which shows in half precision.
        for module in built.modules():
            vars(module).pop("_is_hf_initialized", None)
        with quiet(), torch.no_grad():
            built.initialize_weights()
    except ModelError:
        raise
    except Exception as error:  # building from a configuration can fail in any way
        raise unloadable(model, error) from error
    built.name_or_path = str(model)
    built.requires_grad_(False).eval()
    return built


def _check_files(model: PreTrainedModel, weights: StoredWeights) -> None:
    """Refuse files that do not fit the model, as `check_weights` does after the weights are loaded.

    Raises:
        ModelError: a parameter is not in the files, or they hold more blocks than the model has.
    """
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    partners = tied | {source: target for target, source in tied.items()}
    missing = set(weights.missing(model.state_dict()))
    ignored = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_missing", None) or ()]
    weights.refuse_lacking(
        [name for name in missing if partners.get(name, name) in missing and not any(p.search(name) for p in ignored)]
    )
    # Such as the blocks that predict a token further ahead, which Transformers does not build.
    unread = [re.compile(pattern) for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    strange = [
        key
        for key, tensor in weights.tensors.items()
        if not tensor.targets and not any(pattern.search(key) for pattern in unread)
    ]
    check_weights(str(model.name_or_path), model, {"unexpected_keys": strange})


def _put_the_rest(stack: BlockStack, weights: StoredWeights, device: torch.device) -> None:
    """Load the weights outside the blocks that the backbone needs, without those of a separate head.

    Raises:
        ModelError: a parameter is not in the files, or does not fit.
        NonFiniteError: a weight is a NaN or an infinity.
    """
    model = stack.model
    # Of an encoder and a decoder the whole model runs in a trial.
    whole = stack.backbone is model or model.config.is_encoder_decoder
    begin = "" if whole else f"{model.base_model_prefix}."
    tied = getattr(model, "all_tied_weights_keys", None) or {}

    def outside(name: str) -> bool:
        return name.startswith(begin) and not name.startswith(f"{stack.path}.")

    names = set(model.state_dict())
    wanted = {name for name in names if outside(name)}
    # Of two tied weights the files may hold either one.
    wanted |= {name for pair in tied.items() if wanted.intersection(pair) for name in pair}
    weights.put([key for key, tensor in weights.tensors.items() if tensor.targets & wanted])
    with quiet():
        model.tie_weights(missing_keys=set(weights.missing(names)), recompute_mapping=False)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    parameters = model.named_parameters(remove_duplicate=False)
    lacking = [name for name, parameter in parameters if outside(name) and parameter.is_meta]
    weights.refuse_lacking(lacking)


class OffloadedBlocks:
    """The weights of the blocks of a model, each read from its files when it is needed. See `Residency`.

    Args:
        stack: The blocks, on the meta device.
        weights: The weights of the model.

    Attributes:
        directory: The directory of the model.
        tensors: The tensors in its files, by name.
        block_bytes: How many bytes a block takes in them, on average.

    Raises:
        ModelError: a parameter of the blocks is not in the files.
    """

    def __init__(self, stack: BlockStack, weights: StoredWeights) -> None:
        self._stack, self._weights = stack, weights
        self.directory, self.tensors = weights.directory, weights.tensors
        self._keys = [weights.keys(self._prefix(index)) for index in range(len(stack))]
        self.block_bytes = sum(weights.tensors[key].bytes for keys in self._keys for key in keys) // len(stack)
        self._meta = [dict(block.named_parameters(remove_duplicate=False)) for block in stack]
        self._versions = [_versions(block) for block in stack]
        self._holders: Counter[int] = Counter()
        self._check_names()

    def _prefix(self, index: int) -> str:
        return f"{self._stack.path}.{index}."

    def _check_names(self) -> None:
        model, begin = self._stack.model, f"{self._stack.path}."
        missing = self._weights.missing([name for name in model.state_dict() if name.startswith(begin)])
        if tied := [name for name in missing if name in (getattr(model, "all_tied_weights_keys", None) or {})]:
            raise ModelError(
                f"blocks of {type(model).__name__} share weights ({tied[0]}), so that they cannot be read one by one: "
                "--no-offload loads the whole model"
            )
        self._weights.refuse_lacking(missing)

    @contextmanager
    def held(self, index: int, *, then: int | None = None) -> Iterator[None]:
        """Keep the weights of one block in memory inside this context; see `Residency.held`."""
        self._holders[index] += 1
        try:
            if self._holders[index] == 1:
                self._take(index)
            if then is not None:
                self._weights.read_ahead(self._keys[then])
            yield
            self._refuse_writing(index)
        finally:
            self._holders[index] -= 1
            if not self._holders[index]:
                self._release(index)

    def _take(self, index: int) -> None:
        """Load the weights of a block, which is on the meta device, into memory."""
        self._refuse_writing(index)
        block = self._stack[index]
        try:
            self._weights.put(self._keys[index])
        finally:
            self._versions[index] = _versions(block)
        unread = [f"{self._prefix(index)}{name}" for name, parameter in block.named_parameters() if parameter.is_meta]
        self._weights.refuse_lacking(unread)

    def _release(self, index: int) -> None:
        """Release the weights of a block."""
        block = self._stack[index]
        for path, parameter in self._meta[index].items():
            parent, _, name = path.rpartition(".")
            setattr(block.get_submodule(parent), name, parameter)
        self._versions[index] = _versions(block)

    def _refuse_writing(self, index: int) -> None:
        """Refuse a model that changes weights while it runs, since the change would be lost."""
        now = _versions(self._stack[index])
        if changed := [name for name, version in now.items() if version != self._versions[index][name]]:
            raise ModelError(
                f"{type(self._stack.model).__name__} writes into its weights while it runs "
                f"({self._prefix(index)}{changed[0]}), so it cannot be offloaded: --no-offload loads the whole model"
            )


def _versions(block: nn.Module) -> dict[str, int]:
    """Return how often each parameter of a block was written to."""
    return {name: parameter._version for name, parameter in block.named_parameters(remove_duplicate=False)}
