"""The scorer `divergence`: how far from the intact model the model gets without a block, its gap repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from layerimp import Importance, Scorer
from layerimp.component import Options
from layerimp.indices import named
from layerimp.stats import Mean
from layerimp_closedform.repaired import Repaired

if TYPE_CHECKING:
    from layerimp.sweep import Trace


class DivergenceConfig(Options):
    """The options of `divergence`: the text, the repair, and the weight of copying."""

    rows: int | None = Field(
        None,
        ge=1,
        description="The number of rows to measure on, at most half of all; null: 12, or half of all rows if the model "
        "predicts one label for each row.",
    )
    tokens: int = Field(
        4096,
        ge=1,
        description="The repairs are fitted on rows that have so many tokens in all, or on all that are not measured.",
    )
    ridge: float = Field(
        0.3,
        gt=0,
        description="The ridge of the fits, in units of the mean square of the map's input.",
    )
    copying: float = Field(
        0.5,
        ge=0,
        le=1,
        description="The weight of the tokens that the model can copy; all other tokens have the rest. Measured rows "
        "hold their first half twice.",
    )


class Divergence(Scorer):
    """Rise of the divergence from the intact model when the block is left out and its gap is repaired."""

    name = "divergence"
    reference = "layerimp: the divergence of Kullback and Leibler after a fit as in ReplaceMe, arXiv:2505.02819"
    Config = DivergenceConfig
    sweep = Repaired()
    observes = frozenset({"divergence", "before"})
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        options = self.config
        self.sweep = Repaired(options.rows, options.tokens, options.ridge)
        self._means = {name: Mean(num_blocks) for name in ("plain", "plain rise", "copied", "copied rise")}
        self._repaired = [True] * num_blocks
        self._unrepeated = 0

    def update(self, trace: Trace) -> None:
        """Add the divergences of a batch with and without one block [batch, position]."""
        copied = trace.extras["copied"]
        without, rise = trace.acts["divergence"], trace.acts["divergence"] - trace.acts["before"]
        for what, chosen in (("plain", trace.mask & ~copied), ("copied", trace.mask & copied)):
            self._means[what].add(trace.block, without[chosen])
            self._means[f"{what} rise"].add(trace.block, rise[chosen])
        self._repaired[trace.block] &= bool(trace.extras["repaired"])
        self._unrepeated = int(trace.extras["unrepeated"])

    def compute(self) -> Importance:
        """Return the rise of the weighted mean divergence per prediction, in nats.

        Columns hold the divergence without each block: at tokens that cannot be copied, and at those that can.
        """
        plain, rise, copied, copied_rise = (mean.value() for mean in self._means.values())
        columns, scores = {"divergence": plain.tolist()}, rise
        if not copied.isnan().any():
            columns["divergence_copying"] = copied.tolist()
            scores = (1 - self.config.copying) * rise + self.config.copying * copied_rise
        notes = []
        if bare := [block for block, is_repaired in zip(self.blocks, self._repaired, strict=True) if not is_repaired]:
            notes.append(f"scored without a repair, which cannot be fitted or has nothing to do: {named(bare)}")
        if self._unrepeated:
            notes.append(
                f"copying is not measured on {self._unrepeated} of the rows to measure on, which are too "
                "short to hold their first half twice (--max-length)"
            )
        return Importance(scores=scores.tolist(), columns=columns, notes=notes)
