"""The progress of an evaluation, which is shown as soon as lm-eval has built its requests."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from layerimp_harness.isolation import muted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from layerimp.progress import Advance, Progress


class LazyStage:
    """A progress stage that starts with the first report, after lm-eval has built its requests."""

    def __init__(self, progress: Progress, description: str, count: Callable[[], int]) -> None:
        self._progress = progress
        self._description = description
        self._count = count
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def __enter__(self) -> None:
        self._stack.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def advance(self, units: int) -> None:
        """Report `units` more finished requests."""
        if self._advance is None:
            stage = self._progress.stage(self._description, total=self._count(), unit="requests")
            self._advance = self._stack.enter_context(stage)
            self._stack.enter_context(muted())  # a live display replaces the muted streams by its own
        if units:
            self._advance(units)
