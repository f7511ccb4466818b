"""Meta models: models without weights, built by stock code from a configuration, and the facts that describe them."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from layerimp.blocks.modes import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Facts = dict[str, object]
"""The facts that distinguish a module: the classes of its parts, the shapes of weights, and plain attributes."""

_PLAIN = (bool, int, float, str, type(None))


class Builder:
    """Builds meta models of one model, all in the same way.

    Weights are never created. Constants that no checkpoint holds (position tables, slopes, masks) are computed, so that
    their values can be compared. If a model cannot be built this way, the constants are left out as well.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._kind = type(model)
        self._constants: bool | None = None

    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """Build the model as stock code elsewhere would: the configuration is first written and read again."""
        if self._constants is None:
            try:
                built = self._build(config, _WithoutWeights())
            except Exception:  # such as a model that computes constants from weights
                self._constants = False
            else:
                self._constants = True
                return built
        return self._build(config, _WithoutWeights() if self._constants else torch.device("meta"))

    def _build(self, config: PretrainedConfig, context: AbstractContextManager[Any]) -> PreTrainedModel:
        with quiet(), context:
            return self._kind(reread(config))


def reread(config: PretrainedConfig) -> PretrainedConfig:
    """Return a configuration as it is read back from its file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        config.to_json_file(file)
        return type(config).from_json_file(file)


class _WithoutWeights(TorchFunctionMode):
    """Puts tensors that are to be filled with weights on the meta device, and computes all others."""

    _UNFILLED = frozenset({torch.empty, torch.rand, torch.randn, torch.empty_strided})
    _FILLING = re.compile(r"_?(no_grad_)?(normal|uniform|trunc_normal|(kaiming|xavier)_(normal|uniform)|orthogonal)_")
    """The names of functions that initialise weights; by name, since Transformers replaces some functions of torch."""

    def __torch_function__(
        self, func: Any, _types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._UNFILLED:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        if self._FILLING.fullmatch(getattr(func, "__name__", "")):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def blocks_of(model: nn.Module, path: str) -> list[nn.Module]:
    """Return the modules of the list at `path`; empty if a model has no list there."""
    module = dict(model.named_modules(remove_duplicate=False)).get(path)
    return list(module) if isinstance(module, nn.ModuleList) else []


def lists_of(model: nn.Module) -> dict[str, int]:
    """Return the number of modules in each list of modules, by path."""
    return {path: len(module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}


def facts(module: nn.Module, *, without: str = "") -> Facts:
    """Return the facts of a module by path, without those of the list of modules at `without`."""
    by_path: Facts = {}
    for path, part in module.named_modules(remove_duplicate=False):
        if without and path.startswith(f"{without}."):
            continue
        prefix = f"{path}." if path else ""
        by_path[f"{prefix}class"] = type(part).__name__
        for name, value in vars(part).items():
            if name[0] == "_" or name == "training":
                continue
            if _plain(value):
                by_path[prefix + name] = tuple(value) if isinstance(value, list) else value
            elif isinstance(value, dict) and value and all(type(key) is int for key in value):
                by_path[prefix + name] = value  # a mapping from block indices
        for name, parameter in part.named_parameters(recurse=False):
            by_path[prefix + name] = tuple(parameter.shape)
        for name, buffer in part.named_buffers(recurse=False):
            by_path[prefix + name] = tuple(buffer.shape)
            if name in part._non_persistent_buffers_set and not buffer.is_meta:
                by_path[f"{prefix}{name} (values)"] = hashlib.sha256(
                    buffer.detach().cpu().float().numpy().tobytes()
                ).hexdigest()[:12]
    return by_path


def _plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, list | tuple) and all(isinstance(v, _PLAIN) for v in value))
