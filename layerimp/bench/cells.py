"""The cells of a grid: what is computed once, under a key that its content makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from layerimp.pruner import counted
from layerimp.steps import Step, named

Kind = Literal["scoring", "planning", "evaluation", "costing"]
Result = Mapping[str, Any]
"""What a finished cell came to, as plain data."""


@dataclass(frozen=True)
class Cell:
    """One thing to compute.

    Attributes:
        kind: What sort of thing.
        model: The label of the model.
        content: All that can change the result, as plain data; it makes the key. Labels are not in it, nor is what
            only says how to get there: equal cells of two recipes are one.
        scorer: The label of the scorer, where there is one.
        healer: The label of the healer, where there is one.
        seed: Of the calibration text, and of what is drawn beside it.
    """

    kind: Kind
    model: str
    content: Mapping[str, Any]
    scorer: str = ""
    healer: str = ""
    seed: int = field(default=0, compare=False)

    @cached_property
    def key(self) -> str:
        """A hash of the content."""
        return digest({"kind": self.kind, **self.content})

    def __str__(self) -> str:
        content = self.content
        what = {
            "scoring": lambda: f"score {self.model} by {self.scorer} (seed {self.seed})",
            "planning": lambda: f"plan the removal of {counted(content['count'])} of {self.model} by {self.scorer}",
            "evaluation": lambda: (
                f"evaluate {content['task']} on {self.model} {_without(content['blocks'])}"
                + (f", healed by {self.healer} (seed {self.seed})" if self.healer else "")
            ),
            "costing": lambda: f"time {self.scorer} on {self.model}",
        }
        return what[self.kind]()


def _without(steps: Sequence[Step]) -> str:
    """What an evaluation removes, in words."""
    return f"without {named(steps)}" if steps else "(intact)"


def score_by_step(scoring: Result) -> dict[Step, float]:
    """What a scoring came to: the score of each block, and of each seam where seams were scored."""
    scores = scoring["scores"]
    return dict(zip(scoring["blocks"] or range(len(scores)), scores, strict=True))


def blocks_in(scoring: Result) -> int:
    """How many blocks a scoring is of."""
    return sum(isinstance(step, int) for step in score_by_step(scoring))


def digest(content: Any) -> str:
    """A hash of plain data."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What came of a cell.

    Attributes:
        key: The cell's.
        result: What it came to; None where it failed, and where only a shard of its text was scored.
        error: Why it failed, in one line; empty where it did not.
        lasting: Whether another try would fail for the same reason.
        shard: What a scorer made of a shard of the text, as bytes.
        seconds: How long it took.
    """

    key: str
    result: Result | None = None
    error: str = ""
    lasting: bool = True
    shard: bytes = b""
    seconds: float = 0.0
