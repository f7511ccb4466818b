"""Keeps the state of a training on disk, for the same command to go on with after an interruption."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RARELY = 15.0
"""Seconds between two writings at least."""
SHARE = 0.02
"""The most of the time that goes into writing."""


@dataclass(frozen=True)
class State:
    """How far a training is.

    Attributes:
        steps: How many steps were taken.
        tokens: How many tokens were read.
        seconds: How long it has taken, of all its runs.
        spent: The share of the limit that is used up.
        checked: How often the held-out loss was measured.
        least: The least held-out loss so far.
        best: The steps and tokens up to the step that had it, and whether there was one.
        values: The parameters as they are.
        best_values: The parameters as they were at the best step; empty where there was none.
        optimizer: The optimizer's state.
    """

    steps: int
    tokens: int
    seconds: float
    spent: float
    checked: int
    least: float
    best: tuple[int, int, bool]
    values: Sequence[Tensor]
    best_values: list[Tensor]
    optimizer: dict[str, Any]


class Memory:
    """A state in a file.

    Args:
        directory: Where; None keeps nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "training.pt"
        self._next = time.monotonic() + RARELY

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return self._path is not None and time.monotonic() >= self._next

    def read(self, parameters: Sequence[Tensor]) -> State | None:
        """What was kept of a training of such parameters; None where there is nothing, or nothing that fits."""
        if self._path is None or not self._path.exists():
            return None
        try:
            state = State(**torch.load(self._path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError):
            return None
        fits = [value.shape for value in state.values] == [parameter.shape for parameter in parameters]
        return state if fits else None

    def write(self, state: State) -> None:
        """Keep a state in place of the last one. Where nothing can be written the training goes on without."""
        if self._path is None:
            return
        began = time.monotonic()
        fresh = self._path.with_suffix(".new")
        try:
            torch.save(vars(state), fresh)
            os.replace(fresh, self._path)
        except (OSError, RuntimeError):
            fresh.unlink(missing_ok=True)
        now = time.monotonic()
        self._next = now + max(RARELY, (now - began) / SHARE)
