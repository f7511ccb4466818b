"""The cells of a grid. Each is computed once, and is identified by a hash of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from layerimp.errors import LayerimpError, one_line
from layerimp.indices import named
from layerimp.pruner import counted

Kind = Literal["scoring", "planning", "evaluation", "costing"]
Result = Mapping[str, Any]
"""The result of a finished cell, as plain data."""


@dataclass(frozen=True)
class Cell:
    """One piece of a grid's work.

    Attributes:
        kind: The kind of work.
        model: The label of the model.
        content: Everything that can change the result, as plain data, from which the key is made. Labels and settings
            that cannot change the result are left out, so that equal cells of two grids are the same cell.
        scorer: The label of the scorer; empty if there is none.
        healer: The label of the healer; empty if there is none.
        seed: The seed of the calibration text and of other random draws.
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


def _without(blocks: Sequence[int]) -> str:
    """Name the removed blocks in words."""
    return f"without {named(blocks)}" if blocks else "(intact)"


def score_by_block(scoring: Result) -> dict[int, float]:
    """Return the score of each block in a scoring."""
    scores = scoring["scores"]
    return dict(zip(scoring["blocks"] or range(len(scores)), scores, strict=True))


def blocks_in(scoring: Result) -> int:
    """Return the number of blocks that a scoring has scored."""
    return len(scoring["scores"])


def digest(content: Any) -> str:
    """Return a hash of plain data."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell: a result, or an error.

    Attributes:
        key: The key of the cell.
        result: The result; None if the cell failed.
        error: Why the cell failed, in one line; empty if it did not fail.
        lasting: Whether another try would fail for the same reason.
        seconds: How long the cell took.
    """

    key: str
    result: Result | None = None
    error: str = ""
    lasting: bool = True
    seconds: float = 0.0


def failure(key: str, error: BaseException, *, again: bool = False) -> Outcome:
    """Return the outcome of a failed cell, which `again` has tried again.

    Of other errors, only those that layerimp raises deliberately are sure to recur.
    """
    ours = isinstance(error, LayerimpError)
    text = " ".join(str(error).split()) if ours else one_line(error)
    return Outcome(key, error=text, lasting=ours and not again)
