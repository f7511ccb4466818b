"""lm-eval's task manager with the tasks that ship with plugins, and with local rows in place of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.registry.assets import assets
from layerimp_harness.deferred import DeferringFactory, load_all
from layerimp_harness.lm_eval_names import TaskManager

if TYPE_CHECKING:
    from collections.abc import Sequence


class LocalTaskManager(TaskManager):  # type: ignore[misc]
    """A task manager for lm-eval's own functions, such as `simple_evaluate(..., task_manager=...)`.

    Args:
        data_dir: The directory whose rows are read in place of the hub; None to read the hub.
        include_path: Further directories with task files.
        options: The other arguments of lm-eval's task manager.
    """

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        include_path: str | Path | Sequence[str | Path] | None = None,
        **options: Any,
    ) -> None:
        further = [include_path] if isinstance(include_path, str | Path) else include_path or []
        super().__init__(include_path=[*assets().tasks, *further], **options)
        self._data_dir = data_dir
        self._factory = DeferringFactory(meta=self.metadata)

    def load(self, task_list: Any) -> Any:
        """Return the tasks and groups of a list of names, loaded.

        Raises:
            TaskError: rows are missing, or the first one lacks a column.
        """
        held = super().load(task_list)
        load_all(held["tasks"].values(), self._data_dir)
        return held
