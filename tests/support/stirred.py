"""Models whose blocks differ in all weights, and their computations by hand."""

from __future__ import annotations

from typing import Any

import torch
from support.tiny import tiny
from transformers import PreTrainedModel

from layerimp.testing import BLOCKS

MIXED = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
CHANGES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"layer_types": MIXED, "sliding_window": 4},
    "qwen3_moe": {"mlp_only_layers": [1, 3], "norm_topk_prob": True},
}
SETS = [[1], [1, 2], [0, 3]]
"""Removals in the middle, of neighbours, and of both ends."""


def stirred(name: str, **changes: Any) -> PreTrainedModel:
    """A tiny model whose norms and biases differ from block to block."""
    model = tiny(name, **{**CHANGES.get(name, {}), **changes})
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return model


def left(removed: list[int]) -> list[tuple[int, str]]:
    """The attentions and MLPs that are left without some blocks, in depth order."""
    return [(block, part) for block in range(BLOCKS) if block not in removed for part in ("attn", "mlp")]


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The output of a model for tokens without padding."""
    with torch.no_grad():
        output: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return output


def close(output: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to the rounding of float32, in units of the largest."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(output / scale, expected / scale, rtol=0, atol=2e-5)
