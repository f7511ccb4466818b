"""The base class of block influence and relative magnitude: a number per token, averaged over all tokens."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from layerimp import Importance, Scorer
from layerimp.stats import Mean, Workspace, chunks
from layerimp.sweep import Forward

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.sweep import Trace


class TokenMean(Scorer):
    """The mean over tokens of a function of a block's input and output.

    Attributes:
        workspace: Memory for the function's temporary results.
    """

    sweep = Forward()
    observes = frozenset({"block_in", "block_out"})
    identity_scores_least = True

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self._mean = Mean(num_blocks)
        self.workspace = Workspace()

    @abstractmethod
    def per_token(self, before: Tensor, after: Tensor) -> Tensor:
        """Return a number per token [token] for a block's input and output [token, hidden]."""

    def update(self, trace: Trace) -> None:
        """Add one block's input and output [batch, seq, hidden] in one batch."""
        for before, after in zip(chunks(trace.rows("block_in")), chunks(trace.rows("block_out")), strict=True):
            self._mean.add(trace.block, self.per_token(before, after))

    def end_sweep(self) -> None:
        """Release the working memory."""
        self.workspace.release()

    def compute(self) -> Importance:
        """Return the mean of each block."""
        return Importance(scores=self._mean.value().tolist())
