"""Fetch the rows of tasks from the hub into a directory, for a machine without a network."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.errors import TaskError
from layerimp.evaluator import DataFile
from layerimp_harness.local_rows import LocalRows
from layerimp_harness.places import reads_local_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layerimp_harness.deferred import Deferred

README = "README.md"


def fetch(tasks: Iterable[Deferred], directory: Path) -> list[DataFile]:
    """Write the rows that tasks measure, and those of their examples, where `--data-dir` looks for them.

    A file that is there already is kept. The data set's README is written above its files, since it states the licence.

    Args:
        tasks: The tasks, not loaded.
        directory: The data directory.

    Returns:
        The files of the tasks, whether fetched now or before.

    Raises:
        TaskError: a data set cannot be loaded, or is known only to the code of the task.
    """
    files: list[DataFile] = []
    writers: dict[Path, tuple[str, str]] = {}
    for task in tasks:
        if not reads_local_rows(task.stated):
            continue
        rows = LocalRows(task.source, directory.expanduser().resolve())
        _complete(task, rows, writers)
        for split in _wanted(rows):
            _ = rows[split]
        files += rows.files.values()
    return files


def _wanted(rows: LocalRows) -> list[str]:
    """Return the splits of the data set that hold what is measured and the examples."""
    source = rows.source
    named = [split for split in (source.measured, source.examples) if split]
    return list(dict.fromkeys(base for split in named for base in source.bases(split)))


def _complete(task: Deferred, rows: LocalRows, writers: dict[Path, tuple[str, str]]) -> None:
    """Write the files of a task that are not there; `writers` holds the data set of each file that was written."""
    source, path = rows.source, str(task.stated.get("dataset_path") or "")
    wanted, own = _wanted(rows), (path, source.configuration)
    if not wanted or not path or callable(task.stated.get("custom_dataset")):
        raise TaskError(f"task {source.task!r} loads its data by code of its own, and cannot be fetched")
    targets = {split: _target(rows, split, own, writers) for split in wanted}
    lacking = {split: file for split, file in targets.items() if not file.is_file()}
    if not lacking:
        return
    try:
        dataset = _load(task.stated)
        for split, file in lacking.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_name(f".{file.name}.{os.getpid()}")
            dataset[split].to_json(unfinished, force_ascii=False)
            unfinished.replace(file)
            writers[file] = own
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise TaskError(f"task {source.task!r}: its data set {path!r} cannot be fetched: {reason}") from error
    _write_readme(path, rows.directory / source.dataset)


def _target(rows: LocalRows, split: str, own: tuple[str, str], writers: dict[Path, tuple[str, str]]) -> Path:
    """Return the file of a split: one that is there, or else that of the data set, which several tasks can share."""
    present = rows.source.find(split, rows.directory)
    if present is not None and writers.get(present, own) == own:
        return present
    files = [rows.directory / place for place in rows.source.places(split) if place.suffix == ".jsonl"]
    shared = files[-1]
    # Another data set of the same name was written there, by another organisation on the hub.
    return shared if writers.get(shared, own) == own else rows.directory / rows.source.task / f"{split}.jsonl"


def _load(config: dict[str, Any]) -> Any:
    import datasets

    options = config.get("dataset_kwargs") or {}
    kept = {key: value for key, value in options.items() if key not in ("split", "trust_remote_code")}
    return datasets.load_dataset(path=config["dataset_path"], name=config.get("dataset_name"), **kept)


def _write_readme(repository: str, folder: Path) -> None:
    """Write the README of a data set into a folder, if it has one."""
    from huggingface_hub import hf_hub_download

    if not (folder / README).exists():
        with suppress(OSError):
            written = hf_hub_download(repository, README, repo_type="dataset")
            shutil.copyfile(written, folder / README)
