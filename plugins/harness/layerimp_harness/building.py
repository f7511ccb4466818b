"""Build lm-eval's task objects from checked task files, and locate their data files."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.errors import TaskError, listing, unknown_name
from layerimp_harness import guard
from layerimp_harness.deferred import DeferringFactory

if TYPE_CHECKING:
    from collections.abc import Sequence


class GuardedFactory(DeferringFactory):
    """lm-eval's task factory, with a check of every local file before the file is loaded.

    Args:
        data_dir: The first directory in which relative data files are looked up; None for none.
        allow_code: Whether task files may run Python.

    Attributes:
        files: The local task files read so far, with the files that they include.
    """

    def __init__(self, data_dir: Path | None, *, allow_code: bool) -> None:
        super().__init__()
        self.data_dir = data_dir
        self.allow_code = allow_code
        self.files: dict[Path, None] = {}
        self._registry: dict[str, Any] = {}
        self._local = False

    def build_from(self, entry: Any, registry: dict[str, Any]) -> Any:
        """Return the task, the group, or the list of a tag's tasks that `entry` describes."""
        self._registry = registry
        self._local = entry.yaml_path is not None and not guard.is_builtin(entry.yaml_path)
        return self.build(entry, overrides=None, registry=registry)

    def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        # lm-eval loads every file of a task, a group or a group's member through this method.
        if entry.yaml_path is None or guard.is_builtin(entry.yaml_path):
            # lm-eval's functions are trusted on lm-eval's data only; some would run code from a local group's data.
            changed = (overrides or {}).keys() if self._local else set()
            if changed & {"dataset_path", "dataset_name", "dataset_kwargs"} and not self.allow_code:
                guard.refuse_code(guard.read_chain(entry.yaml_path))
            config: dict[str, Any] = super()._load_full_config(entry, overrides)
            if "metric_list" in changed:
                _check_metrics(config, entry.yaml_path)
            return config
        chain = guard.read_chain(entry.yaml_path)
        if not (self.allow_code or all(map(guard.is_installed, chain))):
            guard.refuse_code(chain)
        chain = [path for path in chain if not guard.is_builtin(path)]
        self.files.update(dict.fromkeys(chain))
        config = super()._load_full_config(entry, overrides)
        self._settle(config, chain, {})
        return config

    def _settle(self, config: dict[str, Any], chain: Sequence[Path], inherited: dict[str, Any]) -> None:
        """Locate the data files and check the metrics of a task, or of a group with its inline members."""
        members = config.get("task")
        full = {**inherited, **config}
        self._find_data(config, full, chain)
        if not isinstance(members, list):
            _check_metrics(full, chain[0])
            return
        shared = {key: value for key, value in full.items() if key not in ("task", "group")}
        for member in members:
            own = member if isinstance(member, dict) else {"task": member}
            if (own.get("group") or own.get("task")) in self._registry:
                self._find_data(own, {**shared, **own}, chain)  # the rest is checked when the member's file is read
            else:
                self._settle(own, chain, shared)

    def _find_data(self, config: dict[str, Any], full: dict[str, Any], chain: Sequence[Path]) -> None:
        from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

        kwargs = config.get("dataset_kwargs")
        if not isinstance(kwargs, dict) or "data_files" not in kwargs:
            return
        if full.get("dataset_path") not in _PACKAGED_DATASETS_MODULES:
            return  # the paths are relative to the repository or directory in dataset_path
        places = [self.data_dir, *(path.parent for path in chain), Path.cwd()]
        task = str(full.get("task") or full.get("group"))
        located = _located(kwargs["data_files"], list(dict.fromkeys(p for p in places if p)), task)
        config["dataset_kwargs"] = {**kwargs, "data_files": located}


def _located(value: Any, places: Sequence[Path], task: str) -> Any:
    """Return `data_files` (a string, a list, or a mapping of splits to either) with every path made absolute."""
    if isinstance(value, dict):
        return {split: _located(files, places, task) for split, files in value.items()}
    if isinstance(value, list):
        return [_located(part, places, task) for part in value]
    if not isinstance(value, str) or "://" in value:
        return value
    candidates = [Path(place).expanduser().resolve() / Path(value).expanduser() for place in places]
    for candidate in candidates:
        if candidate.exists() or glob.glob(str(candidate), recursive=True):
            return str(candidate)
    looked = ", ".join(dict.fromkeys(map(str, candidates)))
    raise TaskError(f"task {task!r}: there is no data file {value!r}; looked for {looked}")


def _check_metrics(config: dict[str, Any], file: Path) -> None:
    """Refuse unknown metrics: lm-eval would look for them on the network, and then silently skip them."""
    from layerimp_harness.lm_eval_names import (  # importing `metrics` fills the registries
        AGGREGATION_REGISTRY,
        METRIC_AGGREGATION_REGISTRY,
        METRIC_REGISTRY,
        metrics,  # noqa: F401
    )

    for item in config.get("metric_list") or []:
        if not isinstance(item, dict) or not isinstance(item.get("metric"), str):
            continue
        metric, aggregation = item["metric"], item.get("aggregation")
        scored = config.get("process_results") is not None or item.get("hf_evaluate")
        if not scored and metric not in METRIC_REGISTRY:
            raise TaskError(f"task file {file}: {unknown_name('metric', metric, METRIC_REGISTRY.keys())}")
        if isinstance(aggregation, str) and aggregation not in AGGREGATION_REGISTRY:
            known = AGGREGATION_REGISTRY.keys()
            raise TaskError(f"task file {file}: {unknown_name('aggregation', aggregation, known)}")
        if aggregation is None and metric not in METRIC_AGGREGATION_REGISTRY:
            known = listing(AGGREGATION_REGISTRY.keys())
            raise TaskError(f"task file {file}: metric {metric!r} needs an aggregation, one of {known}")
