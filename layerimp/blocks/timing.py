"""How long work on a device takes, and the error of a median of such times."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds until a device has finished some work; calls to a GPU return before that.

    Args:
        work: Does the work.
        device: The device, which is waited for before and after.
    """
    _wait_for(device)
    start = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def error_of_median(values: Sequence[float]) -> float:
    """Return the standard error of the median under normal noise: sqrt(pi / 2) times that of the mean.

    Raises:
        statistics.StatisticsError: there are fewer than two values.
    """
    return math.sqrt(math.pi / 2 / len(values)) * statistics.stdev(values)
