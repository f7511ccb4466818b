"""The global state of the process and of torch, which a plugin must not change."""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple
from warnings import warn

import numpy as np
import torch

from layerimp.errors import PluginWarning


class _Part(NamedTuple):
    """One part of the state.

    Attributes:
        what: The name of the part in a message; for a mapping, with a placeholder for the key.
        get: Reads the part; returns a value that can be compared, or None if it cannot be known.
        put: Restores a value that was read.
    """

    what: str
    get: Callable[[], Any]
    put: Callable[[Any], object]

    def changed(self, before: Any, now: Any) -> list[str]:
        """Describe in words what has changed."""
        if before is None or before == now:
            return []
        if isinstance(before, Mapping):
            return [self.what.format(key) for key in {**before, **now} if before.get(key) != now.get(key)]
        return [self.what]


def _attribute(owner: Any, name: str) -> _Part:
    """Return the part that is an attribute of a module, under its full name."""
    what = f"{owner.__name__}.{name}"
    return _Part(what, lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _put_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _put_autocast(enabled: tuple[bool, bool]) -> None:
    for device, value in zip(("cpu", "cuda"), enabled, strict=True):
        torch.set_autocast_enabled(device, value)


def _put_filters(filters: tuple[Any, ...]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    with warnings.catch_warnings():  # at its end Python drops what it cached for the filters
        pass


def _put_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def _numpy_state() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return (kind, tuple(np.asarray(keys).tolist()), *rest)


def _cuda_states() -> list[bytes] | None:
    if not torch.cuda.is_initialized():
        return None
    return [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]


def _generator(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


_NUMERIC = (
    _Part("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    _Part("whether gradients are computed", torch.is_grad_enabled, torch.set_grad_enabled),
    _Part("autocast", lambda: (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")), _put_autocast),
    _Part("the number of threads", torch.get_num_threads, torch.set_num_threads),
    _Part(
        "whether algorithms are deterministic",
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    ),
    _attribute(torch.backends.cudnn, "deterministic"),
    _attribute(torch.backends.cudnn, "benchmark"),
    _Part("the precision of matrix products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    _Part("the default device", torch.get_default_device, _put_default_device),
)
"""What changes the numbers that others compute."""
_ALL = (
    *_NUMERIC,
    _attribute(sys, "stdout"),
    _attribute(sys, "stderr"),
    _Part("the working directory", os.getcwd, os.chdir),
    _Part("the filters of warnings", lambda: tuple(warnings.filters), _put_filters),
    _Part("the environment variable {}", lambda: dict(os.environ), _put_environment),
    _Part("Python's random numbers", random.getstate, random.setstate),
    _Part("numpy's random numbers", _numpy_state, np.random.set_state),
    _Part(
        "torch's random numbers",
        lambda: torch.get_rng_state().numpy().tobytes(),
        lambda state: torch.set_rng_state(_generator(state)),
    ),
    _Part(
        "the random numbers of the GPU",
        _cuda_states,
        lambda states: torch.cuda.set_rng_state_all([_generator(state) for state in states]),
    ),
)


class ProcessState:
    """The state as it is now.

    Args:
        numeric: Whether to read only what changes the numbers that others compute.
    """

    def __init__(self, *, numeric: bool = False) -> None:
        self._parts = _NUMERIC if numeric else _ALL
        self._before = self._read()

    def _read(self) -> list[Any]:
        return [part.get() for part in self._parts]

    def restore(self) -> list[str]:
        """Restore what has changed since, and return in words what that was."""
        changes: list[str] = []
        for part, before, now in zip(self._parts, self._before, self._read(), strict=True):
            if changed := part.changed(before, now):
                part.put(before)
                changes += changed
        return changes


@contextmanager
def leaving_process(who: str) -> Iterator[None]:
    """Restore the state of the process that is changed inside this context, and name in a line what changed it.

    Args:
        who: The plugin or component, as it is named in a message.
    """
    state = ProcessState()
    try:
        yield
    finally:
        if changes := state.restore():
            listed = f"{', '.join(changes[:-1])} and {changes[-1]}" if changes[1:] else changes[0]
            say_once(f"{who} changed {listed}; put back")


@cache
def say_once(text: str) -> None:
    """Report one line about a plugin, unless it was reported before."""
    warn(text, PluginWarning, stacklevel=3)
