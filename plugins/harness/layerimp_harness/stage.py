"""The progress of an evaluation, which is shown as soon as lm-eval has built its requests."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from layerimp_harness.isolation import muted

if TYPE_CHECKING:
    from collections.abc import Callable

    from layerimp.progress import Advance, Progress


class LazyStage(ExitStack):
    """A progress stage that starts with the first report, after lm-eval has built its requests."""

    def __init__(self, progress: Progress, description: str, count: Callable[[], int]) -> None:
        super().__init__()
        self._progress = progress
        self._description = description
        self._count = count
        self._advance: Advance | None = None

    def advance(self, units: int) -> None:
        """Report `units` more finished requests."""
        if self._advance is None:
            stage = self._progress.stage(self._description, total=self._count(), unit="requests")
            self._advance = self.enter_context(stage)
            self.enter_context(muted())  # a live display replaces the muted streams by its own
        if units:
            self._advance(units)
