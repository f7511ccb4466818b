"""Other last bits: the results of matrix products and attention as another processor has them, for `--last-bit`.

Processors sum in different orders, so that the last bit of a product is a property of the machine. Here it is changed
by a rule of the product's own value. A test that fails with it asserts digits of something that magnifies rounding,
and would fail on the next machine.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VARIABLE = "LAYERIMP_TEST_LAST_BIT"
"""The environment variable by which child processes follow; see `children/sitecustomize.py`."""
CHILDREN = Path(__file__).parent / "children"
"""A folder for PYTHONPATH."""
_PRODUCTS = ("mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "addbmm", "addmv", "dot", "vdot")
"""What matmul, linear and einsum end in. Each may have variants that write into a tensor: `mm.out`, `addmm_`."""
_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
"""Attention in one kernel. In others it is composed of products."""
_FULL = (torch.float32, torch.float64)
_HALF = (torch.bfloat16, torch.float16)
_registered: list[torch.library.Library] = []  # a library that is collected takes its kernels with it


def other_last_bit(values: NDArray[Any]) -> None:
    """Change the last bit of each value in place, by a rule of that value: one up, one down, or not at all.

    Zeros, infinities, NaN and whole numbers stay, since every processor computes them alike. So do numbers beyond the
    normal range. A value and its multiples by powers of two and by -1, which are exact on every processor, are changed
    alike.

    Args:
        values: Of float32 or float64, in any shape.
    """
    values = np.atleast_1d(values)
    bits = values.view(f"i{values.itemsize}")
    limits = np.finfo(values.dtype)
    smallest, largest = np.array([limits.tiny, limits.max], values.dtype).view(bits.dtype)
    size = bits & np.iinfo(bits.dtype).max
    fraction = bits & (1 << limits.nmant) - 1
    changes = (np.trunc(values) != values) & (size > smallest) & (size < largest)
    # The borders of a power of two stay, where a step down is half as long.
    bits += ((fraction ^ (fraction >> 7)) % 3 - 1) * (changes & (fraction > 0))


def install() -> None:
    """Change the kernels of the CPU in this process: in all threads, and for backward passes too."""
    if _registered:
        return
    library = torch.library.Library("aten", "IMPL")

    def replace(name: str, kernel: Callable[..., Any]) -> None:
        library.impl(name, kernel, "CPU", with_keyset=True)

    with warnings.catch_warnings(action="ignore"):  # that a kernel is replaced
        for name in _PRODUCTS:
            kernel = _with_other_last_bit(name)
            replace(name, kernel)
            if hasattr(getattr(torch.ops.aten, name), "out"):
                replace(f"{name}.out", _into(kernel))
            if hasattr(torch.ops.aten, f"{name}_"):
                replace(f"{name}_", _in_place(kernel))
        replace(_ATTENTION, _with_other_last_bit(_ATTENTION))
        replace(f"{_ATTENTION}_backward", _with_other_last_bit(f"{_ATTENTION}_backward"))
    _registered.append(library)


def follow() -> None:
    """Let child processes follow: those that inherit the environment."""
    os.environ[VARIABLE] = "1"
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", str(CHILDREN))]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(CHILDREN), *paths])


def _with_other_last_bit(name: str) -> Callable[..., Any]:
    """Wrap a kernel. 16-bit values are widened for it, so that a product is changed before it is rounded."""
    original = torch.library.get_kernel(f"aten::{name}", "CPU")

    def kernel(keys: Any, *args: Any, **options: Any) -> Any:
        half = next((value.dtype for value in args if isinstance(value, Tensor) and value.dtype in _HALF), None)
        if half is not None:
            args = tuple(map(_widened, args))
            options = {option: _widened(value) for option, value in options.items()}
        results = original.call_boxed(keys, *args, **options)
        if isinstance(results, Tensor):
            return _rounded(results, half)
        if name == _ATTENTION:  # the logarithms of the sums are float32 in any case
            return _rounded(results[0], half), results[1]
        return tuple(_rounded(result, half) for result in results)

    return kernel


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value


def _rounded(result: Tensor, half: torch.dtype | None) -> Tensor:
    if result.dtype in _FULL:
        other_last_bit(result.numpy())
    return result if half is None else result.to(half)


def _into(kernel: Callable[..., Any]) -> Callable[..., Tensor]:
    """Turn a kernel into the variant that writes into a tensor."""

    def variant(keys: Any, *args: Any, out: Tensor, **options: Any) -> Tensor:
        result = kernel(keys, *args, **options)
        return out.resize_(result.shape).copy_(result)

    return variant


def _in_place(kernel: Callable[..., Any]) -> Callable[..., Tensor]:
    """Turn a kernel into the variant that writes into its first tensor."""

    def variant(keys: Any, target: Tensor, *args: Any, **options: Any) -> Tensor:
        return target.copy_(kernel(keys, target, *args, **options))

    return variant
