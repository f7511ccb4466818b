"""The scorer `gbis`: gradient-based importance, the change of the loss for a small change of a block's contribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field

from layerimp import Importance, Scorer, hookimpl
from layerimp.component import Options
from layerimp.stats import Mean, products, working_dtype
from layerimp.sweep import Backward

if TYPE_CHECKING:
    from layerimp.sweep import Trace

Variant = Literal["grad_x_delta", "grad_norm", "grad_x_act"]

SITES: dict[Variant, frozenset[str]] = {
    "grad_x_delta": frozenset({"block_in", "block_out", "block_out_grad"}),
    "grad_norm": frozenset({"block_in_grad"}),
    "grad_x_act": frozenset({"block_in", "block_in_grad"}),
}


class GBISConfig(Options):
    """The options of `gbis`: the quantity derived from the gradient."""

    variant: Variant = Field(
        "grad_x_delta",
        description="grad_x_delta: the gradient times the block's contribution. grad_norm: the norm of the gradient at "
        "the block's input, which mostly ranks blocks by depth. grad_x_act: the gradient times the block's input.",
    )


class GBIS(Scorer):
    """Magnitude of the loss's gradient times the block's contribution, per predicted token."""

    name = "gbis"
    Config = GBISConfig
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "gbis-act": {"variant": "grad_x_act"},
        "gbis-norm": {"variant": "grad_norm"},
    }
    sweep = Backward()
    observes = SITES["grad_x_delta"]
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: GBISConfig | None = None) -> None:
        super().__init__(num_blocks, config)
        self.config: GBISConfig
        self.observes = SITES[self.config.variant]
        self.identity_scores_least = self.config.variant == "grad_x_delta"
        self._magnitude = Mean(num_blocks)
        self._signed = Mean(num_blocks)

    def update(self, trace: Trace) -> None:
        """Add one block's gradients in one batch, counted by targets."""
        assert trace.targets is not None
        count = len(trace.targets)
        if self.config.variant == "grad_norm":
            gradient = trace.rows("block_in_grad")
            norms = torch.linalg.vector_norm(gradient, dim=-1, dtype=working_dtype(gradient.dtype))
            self._magnitude.add_total(trace.block, norms.sum(dtype=torch.float64), count)
        elif self.config.variant == "grad_x_act":
            _, magnitude = products(trace.rows("block_in"), trace.rows("block_in_grad"))
            self._magnitude.add_total(trace.block, magnitude, count)
        else:
            before = trace.rows("block_in")
            added = trace.rows("block_out").to(working_dtype(before.dtype)) - before
            signed, magnitude = products(added, trace.rows("block_out_grad"))
            self._magnitude.add_total(trace.block, magnitude, count)
            self._signed.add_total(trace.block, signed, count)

    def compute(self) -> Importance:
        """Return the magnitudes per target; for `grad_x_delta` also the signed sum, the slope of the loss."""
        signed = {"slope": self._signed.value().tolist()} if self.config.variant == "grad_x_delta" else {}
        return Importance(scores=self._magnitude.value().tolist(), columns=signed)


@hookimpl
def layerimp_scorers() -> list[type[Scorer]]:
    """Return this plugin's scorer."""
    return [GBIS]
