"""A wrong removal that shows only in generation with a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import layerimp


def with_stale_indices(prune: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Remove blocks like `prune`, but leave the old index in every attention of a Llama."""

    def stale(model: Any, steps: Any) -> Any:
        indices = {id(block.self_attn): block.self_attn.layer_idx for block in layerimp.find_blocks(model)}
        prune(model, steps)
        for block in layerimp.find_blocks(model):
            block.self_attn.layer_idx = indices[id(block.self_attn)]
        return model

    return stale
