"""What kinds of work cost: their times, taken in turn so that other programs slow all of them, and their memory."""

from __future__ import annotations

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

Clock = Annotated[Literal["wall", "cpu"], typer.Option(help="cpu: the computing time of all threads.")]


def timed(work: Mapping[str, Callable[[], object]], rounds: int, clock: str) -> dict[str, list[float]]:
    """Return the seconds of each kind in each round, after a round to warm up."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {kind: [] for kind in work}
    for _ in range(1 + rounds):
        for kind, function in work.items():
            start = now()
            function()
            times[kind].append(now() - start)
    return {kind: seconds[1:] for kind, seconds in times.items()}


def shown(times: Mapping[str, Sequence[float]], base: str) -> Iterator[str]:
    """Yield a line for each kind: its seconds, the ratio of its median to the base's, and the ratios within a round."""
    for kind, seconds in times.items():
        median = statistics.median(seconds)
        pairs = [own / other for own, other in zip(seconds, times[base], strict=True)]
        yield (
            f"{kind:>20}: median {median:.3f} s ({min(seconds):.3f} to {max(seconds):.3f}), "
            f"{median / statistics.median(times[base]):.3f} of {base}; "
            f"pairs {statistics.median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})"
        )


def peak(function: Callable[[], object]) -> float:
    """Return by how many MiB the resident memory of this process rises at most. Linux only."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before = _resident("VmRSS")
    function()
    return (_resident("VmHWM") - before) / 1024


def _resident(name: str) -> int:
    """Return a memory of this process in KiB: `VmRSS` for now, `VmHWM` for the greatest."""
    match = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    assert match is not None
    return int(match[1])
