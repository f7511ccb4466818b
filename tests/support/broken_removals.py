"""A removal that goes wrong where only generation with a cache shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import layerimp


def with_stale_indices(prune: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Remove as `prune` does, and leave every attention of a Llama the index that it had before."""

    def stale(model: Any, steps: Any) -> Any:
        indices = {id(block.self_attn): block.self_attn.layer_idx for block in layerimp.find_blocks(model)}
        prune(model, steps)
        for block in layerimp.find_blocks(model):
            block.self_attn.layer_idx = indices[id(block.self_attn)]
        return model

    return stale
