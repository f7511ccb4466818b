"""Where the rows of a task are looked for in a data directory, when they are read in place of the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from layerimp.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDINGS = (".jsonl", ".parquet", "-*-of-*.parquet", "/*.parquet")
"""The ends of the names of files of rows: one file, then shards, last those of a folder, as the hub converts them."""
LOCAL_FILES = "local_files"
"""The key in a task's metadata that names a file below the data directory for each split."""
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
_DEFAULT = "default"
"""What the hub calls the configuration of a data set that names none."""


@dataclass(frozen=True)
class Source:
    """The data set of a task, as the task's configuration states it.

    Attributes:
        task: The name of the task.
        dataset: The last part of the name of its data set.
        configuration: The configuration of the data set; empty if the task names none.
        measured: The split whose documents are measured; empty if only the task's code knows it.
        examples: The split of the examples before each question; empty if they come from elsewhere.
        named: All splits that the task names.
        slices: For a split that is a part of others, the parts, such as `train[10%:]`.
        local_files: The file of a split below the data directory, where the task names one.
    """

    task: str
    dataset: str
    configuration: str
    measured: str
    examples: str
    named: tuple[str, ...]
    slices: Mapping[str, str]
    local_files: Mapping[str, str]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Source:
        """Return the source that lm-eval's configuration of a task describes.

        Raises:
            TaskError: `metadata.local_files` is no mapping from splits to files.
        """
        files = (config.get("metadata") or {}).get(LOCAL_FILES) or {}
        if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
            raise TaskError(
                f"task {config.get('task')!r}: metadata.{LOCAL_FILES} is a mapping from splits to files, got {files!r}"
            )
        slices = (config.get("dataset_kwargs") or {}).get("split")
        named = [config.get(key) or "" for key in _SPLITS]
        training, validation, test, fewshot = named
        own = config.get("fewshot_config") or {}
        examples = own.get("split") or fewshot
        if not examples and own.get("samples") is None:  # else they are written in the task
            examples = training or validation or test
        return cls(
            task=str(config.get("task") or ""),
            dataset=PurePosixPath(str(config.get("dataset_path") or "")).name,
            configuration=str(config.get("dataset_name") or ""),
            measured=test or validation,
            examples=examples,
            named=tuple(dict.fromkeys(filter(None, [*named, examples]))),
            slices=slices if isinstance(slices, dict) else {},
            local_files=files,
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the data set that the task names, or takes parts of."""
        return tuple(dict.fromkeys(base for split in self.named for base in self.bases(split)))

    def bases(self, split: str) -> tuple[str, ...]:
        """Return the splits of the data set that a split of the task is taken from; mostly that split itself."""
        return tuple(re.findall(r"(?:^|\+)\s*([\w.-]+)", self.slices.get(split, split)))

    def places(self, split: str) -> tuple[str, ...]:
        """Return the files that may hold a split of the data set, below the data directory, in order of precedence.

        A `*` stands for the number of a shard: `hf download` lays the files of a data set as its repository on the hub
        does. A file for one configuration or split is never read for another.
        """
        folders = [self.task]
        if self.configuration:
            folders.append(f"{self.dataset}/{self.configuration}")
        elif self.dataset:
            folders += [self.dataset, f"{self.dataset}/{_DEFAULT}"]
        if self.dataset and self.configuration in ("", _DEFAULT):
            folders.append(f"{self.dataset}/data")
        files = [f"{folder}/{split}{ending}" for folder in dict.fromkeys(folders) for ending in ENDINGS]
        # A configuration that is called like a split cannot be told from it.
        if self.configuration and self.splits == (split,) and self.configuration not in ("train", "validation", "test"):
            files += [f"{self.dataset}/{self.configuration}{ending}" for ending in ENDINGS[:2]]
        return tuple(filter(None, (self.local_files.get(split), *files)))


def reads_local_rows(config: Mapping[str, Any]) -> bool:
    """Return whether rows in the data directory stand in for the data set of a task, which is else on the network."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    path, kwargs = config.get("dataset_path"), config.get("dataset_kwargs") or {}
    if (config.get("metadata") or {}).get(LOCAL_FILES) or "://" in str(kwargs.get("data_files", "")):
        return True
    return not (path in _PACKAGED_DATASETS_MODULES or (path is not None and Path(path).expanduser().exists()))
