"""A task with a dozen sentences, a function that runs a command, and its arguments."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerimp.cli import main


@dataclass(frozen=True)
class Run:
    """Runs a command; gives its exit code, stdout and stderr."""

    command: Callable[..., tuple[int, str, str]]

    def __call__(self, *args: object) -> tuple[int, str, str]:
        return self.command(*args)

    def done(self, *args: object) -> tuple[str, str]:
        """Runs a command that has to succeed; gives stdout and stderr."""
        code, out, err = self(*args)
        assert code == 0, err
        return out, err

    def refused(self, *args: object) -> str:
        """Runs a command that has to be refused; gives stderr."""
        code, _, err = self(*args)
        assert code == 2, err
        return err


def done_once(place: Path, *args: object) -> tuple[str, str]:
    """Runs a command that has to succeed, for a fixture that several tests share; gives stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setenv("LAYERIMP_CACHE", str(place / "cache"))
        patched.delenv("COLUMNS", raising=False)
        patched.setattr(sys, "argv", ["layerimp", *map(str, args)])
        with pytest.raises(SystemExit) as done:
            main()
    assert not done.value.code, err.getvalue()
    return out.getvalue(), err.getvalue()


_TASK = """
task: mood
dataset_path: json
dataset_kwargs: {data_files: {test: docs.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_target: label
doc_to_choice: [bad, good]
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


def changed(arguments: Sequence[object], *others: object) -> list[object]:
    """Options with one value each, where these others take the place of those of the same name."""
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    return [word for pair in pairs if pair[0] not in others for word in pair] + [*others]


def mood(directory: Path) -> Path:
    """Writes the task with its documents: 12 sentences, measured by accuracy."""
    documents = [{"text": f"the cat was {word} and it", "label": i % 2} for i, word in enumerate(["big", "small"] * 6)]
    (directory / "docs.jsonl").write_text("\n".join(map(json.dumps, documents)))
    path = directory / "mood.yaml"
    path.write_text(_TASK)
    return path
