"""Save the state of a training on disk, so that the same command can resume after an interruption."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

RARELY = 15.0
"""The shortest time between two writes, in seconds."""
SHARE = 0.02
"""The largest share of the time that may be spent on writing."""


class Check(NamedTuple):
    """A measurement of the held-out loss during a training.

    Attributes:
        steps: The number of steps so far.
        tokens: The number of tokens read so far.
        seconds: The training time so far, in seconds.
        loss: The held-out loss, in nats per prediction.
    """

    steps: int
    tokens: int
    seconds: float
    loss: float


@dataclass(frozen=True)
class State:
    """The state of a training.

    Attributes:
        steps: The number of steps taken.
        tokens: The number of tokens read.
        seconds: The training time so far, in seconds, over all runs of the command.
        spent: The share of the limit that is used up.
        checked: How many of the checks of the held-out loss are over.
        checks: The checks so far, as tuples, without those whose loss was no number.
        values: The current parameters.
        best_values: The parameters at the best check; empty if no check lowered the held-out loss.
        optimizer: The optimizer's state.
    """

    steps: int
    tokens: int
    seconds: float
    spent: float
    checked: int
    checks: list[tuple[int, int, float, float]]
    values: Sequence[Tensor]
    best_values: list[Tensor]
    optimizer: dict[str, Any]


class Memory:
    """A file that holds the state of a training.

    Args:
        directory: The directory of the file; None saves nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "training.pt"
        self._next = time.monotonic() + RARELY

    @property
    def due(self) -> bool:
        """Whether the next write is due."""
        return self._path is not None and time.monotonic() >= self._next

    def read(self, parameters: Sequence[Tensor]) -> State | None:
        """Return the saved state of a training of these parameters.

        Returns:
            The state; None if there is none, if the file cannot be read, or if the shapes of the parameters differ.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            state = State(**torch.load(self._path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError):
            return None
        fits = [value.shape for value in state.values] == [parameter.shape for parameter in parameters]
        return state if fits else None

    def write(self, state: State) -> None:
        """Save a state in place of the last one; if the file cannot be written, the training goes on without it."""
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
