"""Refuses models that layerimp cannot use as they are, before any long work, and names a way that works."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from layerimp.blocks.input_forms import vision_part
from layerimp.errors import ModelError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel

_BESIDE_TEXT = re.compile(r"(audio|video|speech|tower)(_\w+)?")
"""The parts of a configuration that describe inputs other than text and images. Beside images, these are tried too."""

_CHECKED = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""The dtypes that have a NaN and whose extremes torch can compute."""
_PASSED = WeakTensorKeyDictionary()
"""Each tensor that was read and passed, with its `_state` at that time. A tensor that dies leaves it."""


def refuse_unfit(model: PreTrainedModel | Any, *, quantised: bool = False) -> None:
    """Refuse a model from which no blocks can be removed exactly.

    Args:
        model: The model.
        quantised: Whether to accept quantised weights, of a model that is only run.

    Raises:
        ModelError: this is not a model of Transformers, it has unmerged adapters or quantised weights, or reads
            something beside text, but no images; the error names a way that works.
        NonFiniteError: a weight, or a number in the configuration, is a NaN or an infinity; the error names it.
    """
    kind = type(model).__name__
    if not hasattr(model, "config"):
        raise ModelError(f"a loaded model of Transformers is needed, such as layerimp.load gives, got a {kind}")
    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{kind} has adapters that are not merged into its weights; merge them first: model.merge_and_unload()"
        )
    refuse_config(model.config, kind, quantised=quantised)
    refuse_non_finite_weights(model)


def refuse_config(config: PretrainedConfig, kind: str, *, quantised: bool = False) -> None:
    """Refuse the configuration of an unsupported model, before its weights are read; see `refuse_unfit`."""
    if not quantised and (how := getattr(config, "quantization_config", None)):
        method = how.get("quant_method") if isinstance(how, dict) else how.quant_method
        method = getattr(method, "value", method)
        if method == "gguf":
            raise ModelError(
                f"{kind} comes from GGUF; make a plain model first: build one from its configuration without "
                "quantization_config, and load its state_dict()"
            )
        raise ModelError(
            f"the weights of {kind} are quantised ({method}); prune the unquantised model, or the one that "
            "model.dequantize() gives (bitsandbytes), and quantise the result"
        )
    parts = (name for name, value in vars(config).items() if hasattr(value, "to_diff_dict"))
    beside = sorted(filter(_BESIDE_TEXT.fullmatch, parts))
    if beside and vision_part(config) is None:
        raise ModelError(
            f"{kind} reads {', '.join(beside)} beside text, but no images; layerimp can prune models of text, "
            "or of text and images"
        )
    if bad := next(_non_finite(config, ""), None):
        field, value = bad
        raise NonFiniteError(f"the configuration of {kind} says {field} {value}, which must be a finite number")


def refuse_non_finite_weights(model: PreTrainedModel | Any, *, inside: str = "") -> None:
    """Refuse a model with a NaN or an infinity in a parameter, or a NaN in a buffer, which may be a mask of infinities.

    Infinities in buffers are allowed, since a buffer may be a mask. Each number is read once, which takes less time
    than a forward pass over one token, and is not read again while it stands in the same tensor, and torch counts no
    write to it (`Tensor._version`). Torch does not count writes through `Tensor.data` or through a numpy array.

    Args:
        model: The model. Tensors on the meta device are passed over.
        inside: What the paths of the tensors that are looked at begin with, such as `model.layers.3.`; empty for all.

    Raises:
        NonFiniteError: the model has such a value; the error names the first tensor with one.
    """
    parameters = ((path, torch.isfinite, tensor) for path, tensor in model.named_parameters())
    buffers = ((path, _is_number, tensor) for path, tensor in model.named_buffers())
    looked_at = (pair for pair in chain(parameters, buffers) if pair[0].startswith(inside))
    if bad := [path for path, test, tensor in looked_at if not _passes(test, tensor)]:
        source = f" ({model.name_or_path})" if model.name_or_path else ""
        where = bad[0] if len(bad) == 1 else f"{len(bad)} tensors, the first is {bad[0]}"
        raise NonFiniteError(f"{type(model).__name__}{source} holds a NaN or an infinity in its weights: in {where}")


def _passes(test: Callable[[Tensor], Tensor], tensor: Tensor) -> bool:
    """Whether a tensor passes a test; it is read only if it has not passed the test as it is now."""
    if tensor.is_meta or tensor.dtype not in _CHECKED or not tensor.numel():
        return True
    state = _state(test, tensor)
    if state is not None and _PASSED.get(tensor) == state:
        return True
    passes = _extremes(test, tensor)
    if passes and state is not None:
        _PASSED[tensor] = state
    return passes


def _state(test: Callable[[Tensor], Tensor], tensor: Tensor) -> tuple[object, ...] | None:
    """What becomes different when a tensor gets other numbers or another test; None if nothing shows that."""
    # An inference tensor counts no writes, and a subclass may keep its numbers in tensors of its own.
    if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.is_inference():
        return None
    # `tensor.data = other` keeps the tensor and its version. The address of a storage is not used again while a weak
    # reference to it lives, even if the storage is freed.
    storage = StorageWeakRef(tensor.untyped_storage())
    return test, tensor._version, storage, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def _extremes(test: Callable[[Tensor], Tensor], tensor: Tensor) -> bool:
    """Whether the lowest and the highest number of a tensor pass a test; if any number is a NaN, both are NaN.

    Quantised weights may not offer this; then only what they predict is checked.
    """
    try:
        return all(bool(test(extreme)) for extreme in tensor.detach().aminmax())
    except NotImplementedError:
        return True


def _is_number(value: Tensor) -> Tensor:
    return ~value.isnan()


def _non_finite(value: object, path: str, *, listed: bool = False) -> Iterator[tuple[str, float]]:
    """Yield the numbers in a part of a configuration that are not finite, each with its path.

    An infinity in a list is passed over, since it stands for "no bound", as in the `time_step_limit` of Mamba.
    """
    if isinstance(value, float):
        if math.isnan(value) or (math.isinf(value) and not listed):
            yield path, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _non_finite(item, f"{path}.{index}", listed=True)
    elif isinstance(value, Mapping) or hasattr(value, "to_diff_dict"):
        for name, item in (value if isinstance(value, Mapping) else vars(value)).items():
            yield from _non_finite(item, f"{path}.{name}" if path else str(name))
