"""The dtype that a model computes in, and the dtype that its weights are stored in.

A 16-bit model may compute in float32, which represents each of its weights exactly. On a CPU without native 16-bit
arithmetic that is several times faster. Checkpoints are written in the dtype that the model was read in.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerimp.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
"""What a model can compute in."""

SAFETENSORS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The floating-point dtypes by their names in safetensors files."""

HALF = frozenset({torch.float16, torch.bfloat16})
"""The 16-bit dtypes, in which rounding errors can be as large as the errors that a check looks for."""

CPU_HALF_VARIABLE = "LAYERIMP_CPU_HALF"
STORED, FLOAT32 = "stored", "float32"
"""The values of the variable: the CPU computes in 16 bits (as stored), or float32 is used instead."""

_NATIVE_FLAGS = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}
"""The flags of x86 processors that have multiply instructions for a dtype."""
_NATIVE_QUESTIONS = {
    torch.bfloat16: ("_is_avx512_bf16_supported", "_is_amx_tile_supported"),
    torch.float16: ("_is_amx_fp16_supported",),
}
"""The functions of older torch versions, without a list of capabilities, that report the same."""

_STORED = "_layerimp_stored_dtype"
"""The attribute that holds the stored dtype of a model that computes in another one."""


def dtype_named(dtype: str | torch.dtype | None) -> Any:
    """Return the dtype of a name; by default `auto`, the dtype that a model was saved in.

    Raises:
        OptionError: no dtype has that name.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype or "auto"
    if dtype not in DTYPES:
        raise OptionError(f"unknown dtype {dtype!r}. Known: {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype, such as `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def holds(dtype: torch.dtype, other: torch.dtype) -> bool:
    """Whether a dtype represents each number of another one exactly."""
    return torch.promote_types(dtype, other) == dtype


def is_native(dtype: torch.dtype) -> bool:
    """Whether this machine's CPU computes in a dtype, rather than emulating it.

    The environment variable `LAYERIMP_CPU_HALF` decides if it is set; otherwise torch and the processor's flags do.
    Nothing is timed, so that the answer is the same every time.

    Raises:
        OptionError: the value of the variable is neither `stored` nor `float32`.
    """
    if dtype not in HALF:
        return True
    if forced := os.environ.get(CPU_HALF_VARIABLE):
        if forced not in (STORED, FLOAT32):
            raise OptionError(f"{CPU_HALF_VARIABLE} is {forced!r}; it can be {STORED!r} or {FLOAT32!r}")
        return forced == STORED
    name = "bf16" if dtype == torch.bfloat16 else "fp16"
    try:
        supported = bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported")())
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False
    if not supported or platform.machine().lower() not in ("x86_64", "amd64"):
        return supported
    # On x86, oneDNN also reports support for a dtype that it only emulates with AVX-512.
    if hasattr(torch.cpu, "get_capabilities"):
        flags = torch.cpu.get_capabilities()
        return any(flags.get(flag) for flag in _NATIVE_FLAGS[dtype])
    asks = (getattr(torch.cpu, name, None) for name in _NATIVE_QUESTIONS[dtype])  # for older versions of torch
    return any(ask() for ask in asks if ask)


def emulation_note(model: str | Path, stored: torch.dtype) -> str:
    """Return the line that says why a model computes in float32 by default."""
    kind = name_of(stored)
    return f"{model} computes in float32, since this CPU only emulates {kind} (--dtype {kind}: as stored)"


def remember_stored(model: PreTrainedModel, stored: torch.dtype | None, kinds: Collection[str] = ()) -> None:
    """Note a model's stored dtype if the model computes in a wider one and the stored dtype holds its weights exactly.

    The latter is not so if the configuration says bfloat16, but the weights on disk are in float32. The weights are
    read only if the kinds of numbers in the files do not show it.

    Args:
        model: The model.
        stored: Its stored dtype; None if it is not known.
        kinds: The kinds of numbers in its files, such as `BF16`; empty if they are not known.
    """
    compute = model.dtype
    if stored is None or stored == compute or not holds(compute, stored):
        return
    held = {kind for kind, dtype in SAFETENSORS.items() if holds(stored, dtype)}
    shown = bool(kinds) and held.issuperset(kinds)
    parameters = (parameter for parameter in model.parameters() if parameter.dtype == compute)
    if shown or all(converted(parameter, stored) is not None for parameter in parameters):
        note_stored(model, stored)


def note_stored(model: PreTrainedModel, stored: torch.dtype) -> None:
    """Note a model's stored dtype without a look at its weights, such as for a model on the meta device."""
    setattr(model, _STORED, stored)


def converted(tensor: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Return a tensor in another dtype; None if that dtype does not hold each of its values exactly."""
    values = tensor.detach()
    result = values.to(dtype)
    return result if torch.equal(result.to(values.dtype), values) else None


def stored_dtype(model: PreTrainedModel) -> torch.dtype:
    """Return the dtype that a model's weights were read in, whatever dtype it computes in."""
    stored: torch.dtype = getattr(model, _STORED, model.dtype)
    return stored


def stored_bytes(model: PreTrainedModel) -> int:
    """Return the size of a model's parameters on disk in bytes; tied parameters count once."""
    return sum(parameter.numel() * stored_width(model, parameter) for parameter in model.parameters())


def stored_width(model: PreTrainedModel, parameter: Tensor) -> int:
    """Return the size on disk of one number of a parameter, in bytes."""
    return stored_dtype(model).itemsize if parameter.dtype == model.dtype else parameter.itemsize
