"""The scorer `cim`: the contextual importance of a block, the range of a prediction as the block's contribution varies.

Contextual importance and utility were introduced by Främling (arXiv:2202.07292) for variations of the inputs of a
decision. Here, the factor on a block's contribution to the residual stream varies instead; this is layerimp's own
extension.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, field_validator

from layerimp import Importance, Scorer, hookimpl
from layerimp.component import Options
from layerimp.stats import Mean
from layerimp.sweep import Ablation

if TYPE_CHECKING:
    from layerimp.sweep import Trace


class CIMConfig(Options):
    """The options of `cim`: the changes of a block to try, and the quantity to compare."""

    probes: tuple[float | Literal["mean"], ...] = Field(
        (0.0, 0.5, 1.0, "mean"),
        description="The replacements of a block's contribution: the contribution times a factor (0 skips the block), "
        "or the mean of the contributions over the set (mean). The intact block, 1, is always included. [0] is the "
        "cheapest choice.",
    )
    scale: Literal["prob", "log"] = Field("prob", description="Compare the target's probability, or its logarithm.")

    @field_validator("probes")
    @classmethod
    def _changing(cls, probes: tuple[float | Literal["mean"], ...]) -> tuple[float | Literal["mean"], ...]:
        if not set(probes) - {1}:
            raise ValueError("at least one probe has to change the block: anything but 1")
        if not all(math.isfinite(probe) for probe in probes if not isinstance(probe, str)):
            raise ValueError("a probe is a finite number, or mean")
        return probes


class CIM(Scorer):
    """Range of the target's probability over changes of the block's contribution, averaged over all targets."""

    name = "cim"
    reference = "after Främling's contextual importance and utility, arXiv:2202.07292; for blocks layerimp's own"
    Config = CIMConfig
    sweep = Ablation(frozenset({0.0, 0.5, "mean"}))
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: CIMConfig | None = None) -> None:
        super().__init__(num_blocks, config)
        self.config: CIMConfig
        self.sweep = Ablation(frozenset(self.config.probes))
        self.observes = self.sweep.sites
        self._importance = Mean(num_blocks)
        self._utility = Mean(num_blocks)

    def update(self, trace: Trace) -> None:
        """Add the targets' log-probabilities [batch, position] under all changes of one block."""
        values = torch.stack([trace.rows(site).double() for site in sorted(self.observes)])
        intact = trace.rows(Ablation.INTACT).double()
        if self.config.scale == "prob":
            values, intact = values.exp(), intact.exp()
        least, span = values.amin(dim=0), values.amax(dim=0) - values.amin(dim=0)
        self._importance.add(trace.block, span)
        # If no change affects the target's probability, the block neither helps nor hurts.
        self._utility.add(trace.block, torch.where(span > 0, (intact - least) / span, 0.5))

    def compute(self) -> Importance:
        """Return the mean range of each block, and as a column the contextual utility.

        A block with a utility of 0 hurts, one of 0.5 has no effect, and one of 1 helps.
        """
        return Importance(
            scores=self._importance.value().tolist(),
            columns={"contextual_utility": self._utility.value().tolist()},
        )


@hookimpl
def layerimp_scorers() -> list[type[Scorer]]:
    """Return this plugin's scorer."""
    return [CIM]
