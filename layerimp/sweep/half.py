"""The sweep that shows one half of each block: its attention, or its MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from layerimp.blocks.sites import find_taps
from layerimp.errors import ModelError
from layerimp.sweep.base import Scouting
from layerimp.sweep.forward import Forward

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack

Part = Literal["attn", "mlp"]
"""A half of a block."""


@dataclass(frozen=True)
class Half(Forward):
    """One pass through the backbone, in which `block_in` and `block_out` are those of one half of each block.

    Between the two halves, the residual stream is what the last addition in the block, that of the MLP, adds to.

    Attributes:
        part: The half that is shown.
    """

    SITES: ClassVar[frozenset[str]] = frozenset({"block_in", "block_out"})

    part: Part = "attn"

    def scout(self, stack: BlockStack, sites: frozenset[str]) -> Scouting:
        """Find the middle of every block by a trial; see `Sweep.scout`.

        Raises:
            ModelError: a block does not add an attention first and then an MLP.
        """
        site, taps = "block_out" if self.part == "attn" else "block_in", find_taps(stack)
        for index, found in enumerate(taps):
            if "middle" not in found:
                raise ModelError(
                    f"block {index} of {type(stack.model).__name__} cannot be divided into attention and MLP: it does "
                    "not add to the residual stream an attention first and then an MLP"
                )
        return Scouting(frozenset({site}), [{site: found["middle"]} for found in taps])
