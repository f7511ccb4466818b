"""LRP: how much of the relevance of the model's logits flows through a block's contribution to the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field

from layerimp import Importance, Scorer
from layerimp.component import Options
from layerimp.stats import Sum, products, working_dtype
from layerimp_lrp.relevance import Relevance
from layerimp_lrp.rules import CONSTANTS, RuleSet

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.sweep import Trace

TOLERANCE = 1e-3
"""The share of the logits that may be unaccounted for without a note; at least 2 rounding errors of the dtype."""


class LRPConfig(Options):
    """The options of `lrp`: the set of relevance rules."""

    rule: RuleSet = Field(
        "cp",
        description="How attention is treated: cp lets relevance flow through the values only, and conserves "
        "relevance; attnlrp also follows the softmax, and does not conserve relevance.",
    )


class LRP(Scorer):
    """Relevance that flows through the block's contribution, as a share of the logits from which relevance starts."""

    name = "lrp"
    reference = "Bach et al. 2015; Ali et al. 2022, arXiv:2202.07304; Achtibat et al. 2024 (AttnLRP), arXiv:2402.05602"
    Config = LRPConfig
    sweep = Relevance()
    observes = Relevance.SITES
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: LRPConfig | None = None) -> None:
        super().__init__(num_blocks, config)
        self.config: LRPConfig
        self.sweep = Relevance(rule=self.config.rule)
        self._sums = {name: Sum(num_blocks) for name in ("logits", "branch", "signed", "input", "missing")}
        self._tolerance = TOLERANCE

    def update(self, trace: Trace) -> None:
        """Add one block's relevance in one batch."""
        assert trace.targets is not None
        before = trace.rows("block_in")
        at_input, _ = products(before, trace.rows("block_in_grad"))
        signed, branch = _contribution(trace)
        constants = trace.extras.get(CONSTANTS, torch.zeros_like(at_input))
        logits = trace.targets.to(at_input.device)
        missing = (logits.sum() - at_input - constants.to(at_input.device)).abs()
        amounts = {"logits": logits.abs().sum(), "branch": branch, "signed": signed, "input": at_input}
        for name, value in (amounts | {"missing": missing}).items():
            self._sums[name].add(trace.block, value)
        self._tolerance = max(TOLERANCE, 2 * torch.finfo(before.dtype).eps)

    def missing(self) -> list[float]:
        """Return, for each block, the share of the logits that is unaccounted for.

        That is the difference between the logits and the sum of the relevance at the block's input and the
        contributions of later constants. Its magnitude is summed batch by batch, so that batches do not cancel. Under
        `cp` only rounding errors remain; `attnlrp` does not conserve relevance.
        """
        missing: list[float] = (self._sums["missing"].value() / self._sums["logits"].value()).tolist()
        return missing

    def compute(self) -> Importance:
        """Return the magnitude of the relevance of each block's contribution.

        The columns hold the signed relevance of the contribution, and the relevance at the block's input.
        """
        logits = self._sums["logits"].value()
        share = {name: (self._sums[name].value() / logits).tolist() for name in ("branch", "signed", "input")}
        notes = []
        missing = self.missing()
        if self.config.rule == "cp" and max(missing) > self._tolerance:
            where = f"block {self.blocks[missing.index(max(missing))]}"
            notes.append(
                f"relevance is not conserved: {max(missing):.2%} of the logits is unaccounted for at {where}; the "
                "model computes something that no rule knows"
            )
        columns = {"signed_relevance": share["signed"], "input_relevance": share["input"]}
        return Importance(scores=share["branch"], columns=columns, notes=notes)


def _contribution(trace: Trace) -> tuple[Tensor, Tensor]:
    """Return the sum over tokens of the relevance of the block's contribution, and that of its magnitudes."""
    before = trace.rows("block_in")
    added = trace.rows("block_out").to(working_dtype(before.dtype)) - before
    return products(added, trace.rows("block_out_grad"))
