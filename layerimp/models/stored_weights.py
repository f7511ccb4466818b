"""The weights of a checkpoint, which stay in its files until they are requested.

Transformers knows how the tensors in the files become the parameters of a model: renamed, merged or split. Its
functions for this are not public, so only this module calls them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from layerimp.blocks.modes import quiet
from layerimp.errors import ModelError, one_line
from layerimp.models.failures import unfit_keys
from layerimp.models.safetensors_files import Stored, headers_in, indexed, opened

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_PIECE = 8 << 20
"""The number of bytes that are read, or numbers that are looked at, at a time."""


class StoredWeights:
    """The weights of a checkpoint, which are put into a model part by part.

    In the stored dtype and on a CPU, weights are views of the mapped files, and weights that are not read take no
    memory.

    Args:
        directory: The checkpoint.
        model: The model that receives the weights, on the meta device.
        dtype: The dtype that the model computes in.
        device: The device of the weights.

    Attributes:
        directory: The checkpoint.
        tensors: The tensors in the files, by name.

    Raises:
        ModelError: a file cannot be read, or the installed Transformers loads weights in another way.
    """

    def __init__(self, directory: Path, model: PreTrainedModel, dtype: torch.dtype, device: torch.device) -> None:
        self.directory, self._dtype, self._device = directory, dtype, device
        self._model, self._names = model, WeightNames(model)
        self._ahead: Thread | None = None
        stored = headers_in(directory).tensors
        self.tensors = {key: replace(tensor, targets=self._names.targets(key)) for key, tensor in stored.items()}

    def keys(self, prefix: str) -> list[str]:
        """The tensors that a part of the model is made from, by the prefix of its parameters, such as `model.norm.`."""
        return [key for key, tensor in self.tensors.items() if any(name.startswith(prefix) for name in tensor.targets)]

    def read_ahead(self, keys: Collection[str]) -> None:
        """Read tensors, given by name, into the system's cache, in a thread. Faults show when they are put."""
        self._wait()
        tensors = sorted((self.tensors[key] for key in keys), key=lambda tensor: (tensor.file, tensor.begin))
        self._ahead = Thread(target=_read, args=(tensors,), daemon=True)
        self._ahead.start()

    def _wait(self) -> None:
        if self._ahead is not None:
            self._ahead.join()

    def put(self, keys: Collection[str]) -> None:
        """Put tensors, given by name, into the model.

        Raises:
            ModelError: a tensor cannot be read, or its shape differs from that in the configuration.
        """
        self._wait()
        name = self._model.name_or_path
        with ExitStack() as contexts, quiet():
            files = {file: contexts.enter_context(opened(file)) for file in {self.tensors[key].file for key in keys}}
            try:
                slices = {key: files[self.tensors[key].file].get_slice(key) for key in keys}
                info = self._names.load(slices, self._dtype, self._device)
            except (OSError, SafetensorError, RuntimeError, ValueError) as error:
                raise ModelError(f"cannot read the weights of {name!r}: {one_line(error)}") from error
        if wrong := unfit_keys({"mismatched_keys": info.mismatched_keys}):
            raise ModelError(f"the weights of {name!r} do not fit its configuration: {wrong}")
        for problem in (*info.error_msgs, *info.conversion_errors.values()):
            raise ModelError(f"cannot convert the weights of {name!r}: {' '.join(str(problem).split())}")

    def refuse_lacking(self, names: Collection[str]) -> None:
        """Refuse a model of which some parameters are not in the files.

        Raises:
            ModelError: there is such a parameter; the error names one, and the file that should hold it by the index.
        """
        if wrong := unfit_keys({"missing_keys": names}):
            file = indexed(self.directory).get(min(names))
            wrong += f", which {file} should hold by the index; does the file belong to another model?" if file else ""
            raise ModelError(f"the weights of {self._model.name_or_path!r} do not fit its configuration: {wrong}")

    def missing(self, names: Collection[str]) -> list[str]:
        """Return those of the given parameters that are made from no tensor in the files."""
        targets = {name for tensor in self.tensors.values() for name in tensor.targets}
        return sorted(set(names) - targets)


def _read(tensors: Iterable[Stored]) -> None:
    """Read the bytes of tensors, and forget them."""
    piece = memoryview(bytearray(_PIECE))
    for tensor in tensors:
        with suppress(OSError), tensor.file.open("rb", buffering=0) as file:
            file.seek(tensor.begin)
            left = tensor.bytes
            while left > 0 and (got := file.readinto(piece[: min(left, _PIECE)])):
                left -= got


class WeightNames:
    """Maps the tensors in a model's files to its parameters, and loads them with the functions of Transformers.

    Args:
        model: The model; its weights may lie on the meta device.

    Raises:
        ModelError: the installed Transformers loads weights in another way.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        try:
            from transformers import conversion_mapping, core_model_loading, modeling_utils

            self._rename = core_model_loading.rename_source_key
            self._convert = core_model_loading.convert_and_load_state_dict_in_model
            self._form: Any = modeling_utils.LoadStateDictConfig
            self._mapping: Any = conversion_mapping.get_model_conversion_mapping(model)
            self._renamings = [rule for rule in self._mapping if isinstance(rule, core_model_loading.WeightRenaming)]
            self._converters = [rule for rule in self._mapping if isinstance(rule, core_model_loading.WeightConverter)]
            self._patterns = {pattern: rule for rule in self._converters for pattern in rule.source_patterns}
        except (ImportError, AttributeError, TypeError) as error:
            raise _unknown_loading(error) from error
        self._model, self._known = model, model.state_dict()

    def targets(self, key: str) -> frozenset[str]:
        """Return the parameters that a tensor becomes; empty if the model does not use it."""
        prefix = self._model.base_model_prefix
        name, pattern = self._rename(key, self._renamings, self._converters, prefix, self._known)
        if name not in self._known and key in self._known:
            name, pattern = self._rename(key, [], [], prefix, self._known)
        if pattern is None:
            return frozenset({name} & self._known.keys())
        first, *_ = targets = self._patterns[pattern].target_patterns
        return frozenset({name.replace(first, target) for target in targets} & self._known.keys())

    def load(self, slices: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
        """Put slices of files into the model on a device, and return the loading information of Transformers.

        Raises:
            ModelError: the installed Transformers loads weights in another way.
        """
        plan: Mapping[str, Any] = getattr(self._model, "_get_dtype_plan", lambda _dtype: {})(dtype)
        options = {"dtype": dtype, "dtype_plan": dict(plan), "device_map": {"": device}}
        try:
            form = self._form(**options, weight_mapping=self._mapping)
        except TypeError as error:
            raise _unknown_loading(error) from error
        info, _ = self._convert(self._model, dict(slices), form)
        return info


def _unknown_loading(error: Exception) -> ModelError:
    return ModelError(
        "the installed version of Transformers loads weights in a way that layerimp cannot offload "
        f"({one_line(error)}): install another version, or use --no-offload"
    )
