"""A model's stack of blocks: running it, reading from it, and comparing it with another."""

from layerimp.blocks.batches import join_rows, rows_of
from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import computing, run
from layerimp.blocks.modes import in_eval_mode
from layerimp.blocks.stack import BlockStack, probe_ids

__all__ = [
    "BlockStack",
    "bypassed",
    "computing",
    "in_eval_mode",
    "join_rows",
    "probe_ids",
    "rows_of",
    "run",
]
