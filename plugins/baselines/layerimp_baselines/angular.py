"""The scorer `angular`: angular distance over windows of blocks (Gromov et al. 2024, arXiv:2403.17887)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from layerimp import Importance, Scorer
from layerimp.component import Options
from layerimp.errors import OptionError
from layerimp.stats import Mean
from layerimp.sweep import Forward
from layerimp_baselines.geometry import angle

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.sweep import Trace


class AngularConfig(Options):
    """The options of `angular`: the size of a window, and the tokens that count."""

    window: int = Field(1, ge=1, description="The number of consecutive blocks in a window.")
    tokens: Literal["last", "all"] = Field("last", description="Use each row's last token, as in the paper, or all.")


class Angular(Scorer):
    """Angle between the input and output of a window of blocks, over pi; a block's score is its lowest window's."""

    name = "angular"
    reference = "Gromov et al. 2024, arXiv:2403.17887, equation 6"
    Config = AngularConfig
    sweep = Forward()
    observes = frozenset({"block_in", "block_out"})
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: AngularConfig | None = None) -> None:
        super().__init__(num_blocks, config)
        self.config: AngularConfig
        if self.config.window > num_blocks:
            raise OptionError(f"a window of {self.config.window} blocks does not fit into {num_blocks}")
        self.lookback = self.config.window - 1
        self.identity_scores_least = self.config.window == 1  # another block's window may score lower
        self._mean = Mean(num_blocks - self.lookback)

    def update(self, trace: Trace) -> None:
        """Add one batch of the window that ends with this block, if there is one."""
        start = trace.block - self.lookback
        if start >= 0:
            first = trace.inputs[start] if self.lookback else trace.acts["block_in"]
            before, after = self._chosen(trace, first, trace.acts["block_out"])
            self._mean.add(start, angle(before, after) / math.pi)

    def _chosen(self, trace: Trace, *acts: Tensor) -> list[Tensor]:
        """Return, for each of `acts` [batch, seq, hidden], the tokens that count [row, hidden]."""
        if self.config.tokens == "all":
            return [act[trace.mask] if trace.padded else act.flatten(0, 1) for act in acts]
        if not trace.padded:
            return [act[:, -1] for act in acts]
        last = trace.mask.int().cumsum(dim=1).argmax(dim=1)
        return [act[torch.arange(len(act), device=act.device), last] for act in acts]

    def compute(self) -> Importance:
        """Return the windows' scores as spans, and for each block the lowest score of the windows that contain it."""
        windows = self._mean.value().tolist()
        reach = self.lookback
        scores = [min(windows[max(0, block - reach) : block + 1]) for block in range(self.num_blocks)]
        return Importance(scores=scores, spans={self.config.window: windows})
