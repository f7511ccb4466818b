"""Save the state of a training on disk, so that the same command can resume after an interruption."""

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
"""The shortest time between two writes, in seconds."""
SHARE = 0.02
"""The largest share of the time that may be spent on writing."""


@dataclass(frozen=True)
class State:
    """The state of a training.

    Attributes:
        plan: What learns, the rows of a step, and how many of them run at once.
        rate: The peak learning rate in force.
        since: The share of the limit that was used up when this rate came into force.
        steps: The number of steps taken.
        tokens: The number of tokens read.
        seconds: The training time so far, in seconds, over all runs of the command.
        spent: The share of the limit that is used up.
        planned: How many checks there are in all.
        checked: How many of the checks are over.
        checks: The checks so far: steps, tokens, seconds, rate, and the divergences of plain and repeated rows [row].
        values: The current parameters.
        best_values: The parameters at the best check, or at the start.
        optimizer: The optimizer's state.
        scaler: The state of the scaling of the loss; empty unless the model computes in float16.
    """

    plan: tuple[str, int, int]
    rate: float
    since: float
    steps: int
    tokens: int
    seconds: float
    spent: float
    planned: int
    checked: int
    checks: list[tuple[int, int, float, float, list[float], list[float]]]
    values: Sequence[Tensor]
    best_values: Sequence[Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


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

    def read(self) -> State | None:
        """Return the saved state; None if there is none, or if the file cannot be read."""
        if self._path is None or not self._path.exists():
            return None
        try:
            return State(**torch.load(self._path, map_location="cpu", mmap=True, weights_only=True))
        except (OSError, RuntimeError, TypeError, ValueError, EOFError, pickle.UnpicklingError):
            return None

    def write(self, state: State) -> str:
        """Save a state in place of the last one.

        Returns:
            Why the file cannot be written; empty if it is, or if nothing is saved.
        """
        if self._path is None:
            return ""
        began, why = time.monotonic(), ""
        fresh = self._path.with_suffix(".new")
        try:
            torch.save(vars(state), fresh)
            os.replace(fresh, self._path)
        except (OSError, RuntimeError) as error:
            fresh.unlink(missing_ok=True)
            why = f"{type(error).__name__}: {error}"
        now = time.monotonic()
        self._next = now + max(RARELY, (now - began) / SHARE)
        return why
