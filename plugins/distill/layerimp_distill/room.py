"""Decide by arithmetic what a training learns: as much as the memory has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich.filesize import decimal
from torch import nn
from transformers.pytorch_utils import Conv1D

from layerimp.healing import CHUNK_LOGITS
from layerimp.models import classifies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from layerimp.blocks import BlockStack
    from layerimp.healer import Room, Scope
    from layerimp_distill.options import DistillConfig

Learns = Literal["all", "beside", "lora", "lora-beside"]

WORDS: Mapping[Learns, str] = {  # by how much learns, most first
    "all": "all blocks learn",
    "beside": "the blocks beside the gaps learn",
    "lora": "low-rank changes of all blocks learn",
    "lora-beside": "low-rank changes of the blocks beside the gaps learn",
}
ROWS, ON_GPU, LABELLED = 4, 4, 8
"""The rows of a step by default; so many times as many where few would leave a GPU idle, and for a classifier, which
predicts once a row."""
FLOAT = 4
"""The bytes of a learned value, of its gradient, and of each of the two moments that the optimizer keeps of it."""
LOGITS = 3
"""So many values exist at once for each logit: of both models, and the gradients."""
ACTIVATIONS = {False: 8.0, True: 5.0}
"""The bytes kept for the backward pass, at most, for each feature that a matrix reads or writes for a token; by
whether the model computes in 16 bits, which fused experts may not do."""
SCORE = 8
"""The bytes kept of a score of attention, at most, where it computes these one by one: of itself and its softmax."""
SPARE = 1.1
"""The memory that is needed, with a tenth to spare."""


@dataclass(frozen=True)
class Plan:
    """What a training learns, and from how many rows at a time.

    Attributes:
        learns: What learns.
        rows: The rows of a step.
        at_once: How many of them run at once; fewer than `rows` where memory is short.
    """

    learns: Learns
    rows: int
    at_once: int

    def words(self, need: Mapping[str, int], free: int) -> str:
        """Describe the plan with the memory that it needs beside the weights of both models, and the free memory."""
        rows = f"{self.rows} rows a step" + (f", {self.at_once} at once" if self.at_once < self.rows else "")
        parts = ", ".join(f"{name} {decimal(size)}" for name, size in need.items() if size)
        short = "" if fits(need, free) else "; it may not fit: then the training fails, perhaps only at its end"
        return (
            f"{WORDS[self.learns]}, {rows}: {decimal(sum(need.values()))} beside the weights of both models ({parts}), "
            f"where {decimal(free)} are free{short}"
        )


def planned(stack: BlockStack, config: DistillConfig, scope: Scope, room: Room) -> Plan:
    """Decide on the first of `WORDS` that the memory has room for.

    Where memory is short, fewer rows run at once before less learns. If nothing fits, the least is planned. Blocks
    without plain linear maps, as Falcon's, have no low-rank changes.

    Args:
        stack: The blocks of the pruned model; its parameters may be on the meta device.
        config: The options, which may name what learns and the rows of a step.
        scope: The number of gaps, and the length of rows.
        room: The memory.
    """
    many = (ON_GPU if room.device == "cuda" else 1) * (LABELLED if classifies(stack.model) else 1)
    rows = config.rows or ROWS * many
    adapted = any(map(linear_maps, stack))
    ways: list[Learns] = (
        [config.learns] if config.learns else [way for way in WORDS if adapted or not way.startswith("lora")]
    )
    plans = [Plan(learns, rows, at_once) for learns in ways for at_once in _halved(rows)]
    return next((plan for plan in plans if fits(needed(stack, config, plan, scope), room.free)), plans[-1])


def fits(need: Mapping[str, int], free: int) -> bool:
    """Whether there is memory for all parts of a need, with some to spare."""
    return SPARE * sum(need.values()) <= free


def _halved(rows: int) -> Iterator[int]:
    while rows:
        yield rows
        rows //= 2


def needed(stack: BlockStack, config: DistillConfig, plan: Plan, scope: Scope) -> dict[str, int]:
    """Return the most bytes that a training needs beside the weights of both models, by what they are for.

    It needs most in a step, in a check, or at the end, when the healed weights exist beside those of the intact model.
    """
    low_rank, stored = plan.learns.startswith("lora"), stack.model.dtype.itemsize
    changed = [[*_changed(block, low_rank=low_rank)] for block in stack]
    whole = [sum(value.numel() for value in block) for block in changed]
    own = [config.rank * sum(sum(value.shape) for value in block) for block in changed] if low_rank else whole
    count = min(len(whole), 2 * config.width * scope.gaps) if plan.learns.endswith("beside") else len(whole)
    healed, learned = (sum(sorted(sizes)[-count:]) for sizes in (whole, own))
    merging = (3 * FLOAT if low_rank else 2 * stored) * max((v.numel() for block in changed for v in block), default=0)
    tokens, half = plan.at_once * scope.length, stored < FLOAT
    kept = {"learned values": FLOAT * learned, "optimizer": 2 * FLOAT * learned, "best values": FLOAT * learned}
    # A classifier has logits of its labels alone, which are few.
    predicted = 0 if classifies(stack.model) else tokens * stack.vocab_size
    logits = {"logits": FLOAT * LOGITS * min(predicted, CHUNK_LOGITS)}
    moments = (
        {
            **kept,
            "gradients": FLOAT * learned,
            "16-bit copies": stored * learned if half else 0,
            "activations": int(tokens * _activations(stack, half=half)),
            "scores of attention": tokens * scope.length * _scores(stack),
            **logits,
        },
        {**kept, "a merged block": stored * max(whole) + merging, **logits},
        {"learned values": FLOAT * learned, "healed weights": stored * healed, "a merged matrix": merging},
    )
    return max(moments, key=lambda parts: sum(parts.values()))


def _activations(stack: BlockStack, *, half: bool) -> float:
    """Return the bytes that the matrices of the blocks keep for the backward pass of a token."""
    matrices = [value for block in stack for value in block.parameters() if value.ndim > 1]
    routed = getattr(stack.model.config.get_text_config(), "num_experts_per_tok", None) or 1
    plain, fused = (sum(sum(v.shape[-2:]) for v in matrices if (v.ndim > 2) is many) for many in (False, True))
    return ACTIVATIONS[half] * plain + ACTIVATIONS[False] * routed * fused


def _scores(stack: BlockStack) -> int:
    """Return the bytes that attentions keep for the backward pass of a pair of tokens."""
    config = stack.model.config.get_text_config()
    eager = config._attn_implementation == "eager"
    return SCORE * len(stack) * getattr(config, "num_attention_heads", 0) if eager else 0


def _changed(block: nn.Module, *, low_rank: bool) -> Iterator[Tensor]:
    """Yield the parameters of a block that get new values."""
    if low_rank:
        yield from (module.weight for module in linear_maps(block).values())
    else:
        yield from block.parameters()


def linear_maps(block: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    """Return the plain linear maps in a block, which low-rank changes are made of, by path."""
    return {path: module for path, module in block.named_modules() if type(module) in (nn.Linear, Conv1D)}


def without_change(stack: BlockStack) -> int:
    """Return the number of values in matrices of the blocks that low-rank changes leave as they are, as in experts."""
    changed = {id(module.weight) for block in stack for module in linear_maps(block).values()}
    matrices = (value for block in stack for value in block.parameters() if value.ndim > 1)
    return sum(value.numel() for value in matrices if id(value) not in changed)
