"""The option `--last-bit`: what changes, what stays, and who follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from support import last_bit

PRODUCTS = """
import json
import torch
from torch.nn.functional import linear, scaled_dot_product_attention

torch.manual_seed(0)
drawn = torch.randn(1, 4, 16, 32)
whole = torch.arange(16.0).reshape(4, 4)
values = {}
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    values[str(dtype)] = results = {}
    x = drawn.to(dtype, copy=True).requires_grad_()
    rows = x[0, 0]
    results["matmul"] = rows @ rows.T
    results["linear"] = linear(rows, rows, x[0, 0, 0, :16])
    results["vector"] = rows @ x[0, 1, 0]
    results["batched"] = x @ x.transpose(-1, -2)
    results["attention"] = scaled_dot_product_attention(x, x, x, is_causal=True)
    (results["gradient"],) = torch.autograd.grad((rows @ rows.T).sum() + results["attention"].sum(), x)
    results["written"] = torch.mm(rows.detach(), rows.detach().T, out=torch.empty(0, dtype=dtype))
    results["in place"] = torch.zeros(16, 16, dtype=dtype).addmm_(rows.detach(), rows.detach().T)
    results["whole"] = whole.to(dtype) @ whole.to(dtype)
    results["again"] = rows @ rows.T
print(json.dumps({d: {name: v.flatten().tolist() for name, v in r.items()} for d, r in values.items()}))
"""
ROUNDING = {"float32": np.finfo("f4").eps, "float64": np.finfo("f8").eps, "bfloat16": 2.0**-8}


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_value_moves_by_one_bit_or_stays(dtype: str) -> None:
    before = np.random.default_rng(0).normal(size=3000).astype(dtype)
    after = before.copy()
    last_bit.other_last_bit(after)
    bits = after.view(dtype.replace("f", "i")) - before.view(dtype.replace("f", "i"))
    assert {step: round((bits == step).mean(), 1) for step in (-1, 0, 1)} == {-1: 0.3, 0: 0.3, 1: 0.3}


@given(arrays("f4", 40))
def test_equal_values_stay_equal_and_exact_values_stay(values: Any) -> None:
    both = np.stack([values, -values[::-1]])
    last_bit.other_last_bit(both)
    np.testing.assert_array_equal(both[0], -both[1, ::-1])
    exact = (np.trunc(values) == values) | ~np.isfinite(values)
    np.testing.assert_array_equal(both[0, exact], values[exact])
    assert np.isfinite(both[0, np.isfinite(values)]).all()
    assert (np.sign(both[0]) == np.sign(values))[~np.isnan(values)].all()


def test_twice_a_value_becomes_twice_the_other() -> None:
    """Powers of two are exact on every processor."""
    values = np.random.default_rng(1).normal(size=3000).astype("f4")
    twice = 2 * values
    last_bit.other_last_bit(values)
    last_bit.other_last_bit(twice)
    np.testing.assert_array_equal(twice, 2 * values)


def products(**variables: str) -> dict[str, dict[str, np.ndarray]]:
    """The products that a process computes with these environment variables, by dtype and name."""
    unset = {name: value for name, value in os.environ.items() if name not in (last_bit.VARIABLE, "PYTHONPATH")}
    done = subprocess.run([sys.executable, "-c", PRODUCTS], env=unset | variables, capture_output=True, check=True)
    return {
        dtype.removeprefix("torch."): {name: np.array(values) for name, values in results.items()}
        for dtype, results in json.loads(done.stdout).items()
    }


@pytest.mark.skipif(not hasattr(torch.library, "get_kernel"), reason="needs a torch that gives out its kernels")
@pytest.mark.slow
def test_child_processes_follow() -> None:
    """The products of a process with other last bits differ from those of one without, by no more than rounding."""
    plain, changed = products(), products(PYTHONPATH=str(last_bit.CHILDREN), **{last_bit.VARIABLE: "1"})
    for dtype, before in plain.items():
        after = changed[dtype]
        np.testing.assert_array_equal(after["again"], after["matmul"])
        np.testing.assert_array_equal(after["whole"], before["whole"])
        for name, values in before.items():
            np.testing.assert_allclose(after[name], values, rtol=0, atol=4 * ROUNDING[dtype] * abs(values).max())
            if name != "whole" and dtype != "bfloat16":  # a product that is rounded to 16 bits seldom shows the change
                assert (after[name] != values).mean() > 0.4, f"{name} in {dtype}"
