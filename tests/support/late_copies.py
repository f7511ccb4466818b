"""A simulated GPU that copies as late as it may: only once somebody waits for the copy.

Everything is computed on the CPU. What is read or written over before its copy is done shows in the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import local
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from layerimp.models import copy_ahead

_current = local()


class Stream:
    """A queue of copies, in place of `torch.cuda.Stream`.

    Attributes:
        events: What happened, in order: `wait` for another stream, and `copy`.
    """

    events: list[str] = []  # noqa: RUF012 - of all streams

    def __init__(self, device: Any = None) -> None:
        self.queue: list[Callable[[], Any]] = []

    def wait_stream(self, other: Stream) -> None:
        assert other is not self
        self.events.append("wait")

    def synchronize(self) -> None:
        self.finish(len(self.queue))

    def finish(self, count: int) -> None:
        for copy in self.queue[:count]:
            copy()
        del self.queue[:count]


class Event:
    """A place in a queue, in place of `torch.cuda.Event`."""

    def __init__(self) -> None:
        self.before: list[Callable[[], Any]] = []
        self.stream: Stream | None = None

    def record(self) -> None:
        self.stream = _current.stream
        self.before = list(_current.stream.queue)

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.finish(sum(copy in self.before for copy in self.stream.queue))


class _Within(TorchFunctionMode):
    """Puts copies that need not be waited for into the queue of a stream, in place of `torch.cuda.stream`."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def __enter__(self) -> Any:
        _current.stream = self.stream
        return super().__enter__()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.copy_ and (kwargs or {}).get("non_blocking"):
            to, source = args
            self.stream.events.append("copy")
            self.stream.queue.append(lambda: Tensor.copy_(to, source))
            return to
        return func(*args, **(kwargs or {}))


def simulate(monkeypatch: pytest.MonkeyPatch, piece: int = 64) -> Stream:
    """Let copies to a GPU be late ones on the CPU, in pieces of a few bytes. Return a stream with the events."""
    main = Stream()
    main.events.clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", _Within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: main)
    monkeypatch.setattr(copy_ahead, "_page_locked", lambda size: torch.empty(size, dtype=torch.uint8))
    monkeypatch.setattr(copy_ahead, "_PIECE", piece)
    return main
