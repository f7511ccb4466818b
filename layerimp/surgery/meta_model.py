"""What stock code builds from a configuration: a model without weights, and the facts that distinguish its parts."""

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
"""What distinguishes a module: the classes of its parts, the shapes of their weights, their plain attributes."""

_PLAIN = (bool, int, float, str, type(None))


class Builder:
    """Builds meta models of one model, all in the same way.

    Weights are never made. Constants that come with no checkpoint (position tables, slopes, masks) are, so that their
    values can be compared; where a model cannot be built so, they are left out as well.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._kind = type(model)
        self._constants: bool | None = None

    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """What a stranger's stock code builds: the configuration is written and read again first."""
        if self._constants is None:
            try:
                built = self._build(config, _WithoutWeights())
            except Exception:  # weights and constants are computed from one another
                self._constants = False
            else:
                self._constants = True
                return built
        return self._build(config, _WithoutWeights() if self._constants else torch.device("meta"))

    def _build(self, config: PretrainedConfig, context: AbstractContextManager[Any]) -> PreTrainedModel:
        with quiet(), context:
            return self._kind(reread(config))


def reread(config: PretrainedConfig) -> PretrainedConfig:
    """A configuration as a stranger reads it from the file that was written."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        config.to_json_file(file)
        return type(config).from_json_file(file)


class _WithoutWeights(TorchFunctionMode):
    """Puts what is to be filled with weights on the meta device, and computes the rest."""

    _UNFILLED = frozenset({torch.empty, torch.rand, torch.randn, torch.empty_strided})
    _FILLING = re.compile(r"_?(no_grad_)?(normal|uniform|trunc_normal|(kaiming|xavier)_(normal|uniform)|orthogonal)_")
    """Names of what draws weights: by name, since Transformers puts functions of its own in place of torch's."""

    def __torch_function__(
        self, func: Any, _types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._UNFILLED:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        if self._FILLING.fullmatch(getattr(func, "__name__", "")):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def facts(module: nn.Module, *, without: str = "") -> Facts:
    """The facts of a module, by their path in it; those of the list of modules at `without` are left out."""
    found: Facts = {}
    for path, part in module.named_modules(remove_duplicate=False):
        if without and path.startswith(f"{without}."):
            continue
        prefix = f"{path}." if path else ""
        found[f"{prefix}class"] = type(part).__name__
        for name, value in vars(part).items():
            if name[0] == "_" or name == "training":
                continue
            if _plain(value):
                found[prefix + name] = tuple(value) if isinstance(value, list) else value
            elif isinstance(value, dict) and value and all(type(key) is int for key in value):
                found[prefix + name] = value  # a mapping from block indices
        for name, parameter in part.named_parameters(recurse=False):
            found[prefix + name] = tuple(parameter.shape)
        for name, buffer in part.named_buffers(recurse=False):
            found[prefix + name] = tuple(buffer.shape)
            if name in part._non_persistent_buffers_set and not buffer.is_meta:
                found[f"{prefix}{name} (values)"] = hashlib.sha256(
                    buffer.detach().cpu().float().numpy().tobytes()
                ).hexdigest()[:12]
    return found


def _plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, list | tuple) and all(isinstance(v, _PLAIN) for v in value))
