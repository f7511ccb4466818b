"""A directory of data with the files of SST-2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def write_sst2(directory: Path, train: Sequence[str], dev: Sequence[str]) -> None:
    """Writes both splits for the task `layerimp_sst2`; every second sentence is positive, the first one is negative."""
    for split, sentences in (("train", train), ("dev", dev)):
        lines = [json.dumps({"sentence": text, "label": number % 2}) for number, text in enumerate(sentences)]
        file = directory / "sst2" / f"{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines))
