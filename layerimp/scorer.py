"""The contract of an importance metric, and what it finds."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from layerimp._table import Column, Table, Tabular
from layerimp.component import Component
from layerimp.errors import NonFiniteError, PluginError, unknown_name
from layerimp.indices import weakest_first

if TYPE_CHECKING:
    from collections.abc import Mapping

    from layerimp.sweep import Sweep, Trace


@dataclass(frozen=True)
class Importance(Tabular):
    """The result of a scorer: one score per scored block. A higher score means: keep this block.

    Attributes:
        scores: One finite number per scored block, in depth order.
        blocks: For each score, the index of its block in the original model. If left empty, all blocks in order.
        columns: Further per-block numbers, by name; each as long as `scores`.
        spans: For a window length n, the score of each window of n neighbouring blocks, ordered by first block.
        notes: Sentences that a reader of the scores has to know, such as a fallback that was taken.

    Raises:
        PluginError: a column, or `blocks`, is not as long as `scores`.
        NonFiniteError: a score or a column holds a NaN or an infinity.
    """

    scores: list[float]
    blocks: Sequence[int] = field(default_factory=list)
    columns: Mapping[str, list[float]] = field(default_factory=dict)
    spans: Mapping[int, list[float]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __repr__(self) -> str:
        least = ", ".join(map(str, self.weakest_first()[:3]))
        more = f"; columns {', '.join(self.columns)}" if self.columns else ""
        return f"Importance({len(self.scores)} scores, the least of {least}{more})"

    def _table(self) -> Table:
        """Return a row for each block, in depth order, with its score and the further columns."""
        columns = {"block": self.blocks, "score": self.scores, **self.columns}
        order = sorted(range(len(self.scores)), key=lambda place: self.blocks[place])
        return Table([Column(name, [values[place] for place in order]) for name, values in columns.items()])

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", [float(score) for score in self.scores])
        columns = {name: [float(value) for value in values] for name, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        if not self.blocks:
            object.__setattr__(self, "blocks", list(range(len(self.scores))))
        for length, scores in self.spans.items():
            if not all(map(math.isfinite, scores)):
                raise NonFiniteError(f"a score of the windows of {length} blocks is not finite")
        lengths = {name: len(values) for name, values in self.columns.items()} | {"blocks": len(self.blocks)}
        for name, length in lengths.items():
            if length != len(self.scores):
                raise PluginError(f"{name} holds {length} values for {len(self.scores)} scores")
        for name, values in {"score": self.scores, **self.columns}.items():
            for block, value in zip(self.blocks, values, strict=True):
                if not math.isfinite(value):
                    raise NonFiniteError(f"the {name} of block {block} is {value}")

    def weakest_first(self) -> list[int]:
        """The scored blocks, from the lowest score to the highest; of two equal scores the deeper block comes first."""
        return weakest_first(dict(zip(self.blocks, self.scores, strict=True)))


class Scorer(Component):
    """An accumulator over what the blocks do on the calibration set, which sees each trace once.

    A whole plugin with one:

        from layerimp import Importance, Scorer, hookimpl
        from layerimp.stats import Mean
        from layerimp.sweep import Forward


        class Step(Scorer):
            \"\"\"Mean L2 norm of what the block adds to the residual stream.\"\"\"

            name = "step"
            sweep = Forward()
            observes = frozenset({"block_in", "block_out"})
            identity_scores_least = True

            def __init__(self, num_blocks, config=None):
                super().__init__(num_blocks, config)
                self.mean = Mean(num_blocks)

            def update(self, trace):
                step = trace.rows("block_out") - trace.rows("block_in")
                self.mean.add(trace.block, step.norm(dim=-1))

            def compute(self):
                return Importance(scores=self.mean.value().tolist())


        @hookimpl
        def layerimp_scorers():
            return [Step]

    A scorer sees each block in each row once, some rows at a time; blocks and rows may come in any order. Of a model
    that is offloaded, all batches pass through a block before any of them reaches the next one. Tensors in a trace are
    borrowed: reduce them, never keep or change them.

    Attributes:
        sweep: The way of driving the model that this scorer needs; None if the scorer does not look at the model.
        observes: The sites that the scorer reads, out of those that its sweep offers.
        lookback: The number of earlier blocks whose inputs the scorer needs in `Trace.inputs`.
        fallbacks: For a site that some models do not have, the site to read in its place.
        identity_scores_least: Whether a block that adds exactly nothing to the residual stream, because its output
            projections are zero, always gets the lowest score of all (or exactly 0, if harmful blocks score below 0).
            Like `sweep`, `observes` and `lookback`, it may depend on the options: the class attribute holds for the
            default options, the attribute of an instance for the options of that instance.
        num_blocks: The number of scored blocks. `Trace.block` counts from 0 to `num_blocks - 1`.
        blocks: The indices of the scored blocks in the intact model, by `Trace.block`, for use in notes.
    """

    sweep: Sweep | None
    observes: frozenset[str] = frozenset()
    lookback: int = 0
    fallbacks: ClassVar[Mapping[str, str]] = {}
    identity_scores_least: bool = False

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(config)
        self.num_blocks = num_blocks
        self.blocks: Sequence[int] = range(num_blocks)

    @classmethod
    def fault(cls) -> str | None:
        """What is wrong with the class, its sweep or the sites that it observes."""
        if known := super().fault():
            return known
        sweep, observed = getattr(cls, "sweep", None), cls.observes
        if isinstance(sweep, type):
            return f"{cls.__name__}.sweep is a class; write {sweep.__name__}()"
        if isinstance(observed, str):
            return f"{cls.__name__}.observes is a text; write frozenset({{{observed!r}}})"
        offered: frozenset[str] = getattr(sweep, "sites", frozenset())
        if offered and isinstance(observed, Set) and (unknown := sorted(observed - offered)):
            wrong = unknown_name("site", unknown[0], offered, of=f"the sweep {type(sweep).__name__}")
            return f"{cls.__name__} observes an {wrong}"
        return None

    @abstractmethod
    def update(self, trace: Trace) -> None:
        """Take in what one block did in one batch."""

    def end_sweep(self) -> None:
        """Called at the end of the calibration set."""

    @abstractmethod
    def compute(self) -> Importance:
        """The importance from all traces so far. Calling it twice gives the same result."""
