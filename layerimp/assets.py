"""Models, texts and tasks that plugins ship, for use by name: `--model starter`, `--calibration prose`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Assets:
    """Files that a plugin ships.

    A name takes precedence over a file or a directory of the same name; `./starter` means the directory.

    Attributes:
        models: By name, directories that `from_pretrained` loads.
        texts: By name, JSONL files whose field `text` is for calibration.
        tasks: Directories with task YAMLs of lm-evaluation-harness. They may run code, since it was installed with the
            plugin.
    """

    models: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, Path] = field(default_factory=dict)
    tasks: tuple[Path, ...] = ()
