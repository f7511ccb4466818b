"""How far a model is from the intact one: its predictions, its copying, and the text that it generates.

The names are loaded on first use, so that importing a record imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "PROMPT_TOKENS",
    "Compared",
    "Comparer",
    "Comparison",
    "Continuation",
    "Copying",
    "Distance",
    "Divergence",
    "Fidelity",
    "Generation",
    "Intact",
    "Loss",
    "Prompt",
    "Sample",
    "Spread",
    "compare_texts",
    "compared",
    "continuations",
    "end_tokens",
    "prompts",
    "repeated",
]

_MODULES = ("record", "comparer", "copying", "distance", "divergence", "generation", "intact")

if TYPE_CHECKING:
    from layerimp.fidelity.comparer import Comparer, Comparison
    from layerimp.fidelity.copying import repeated
    from layerimp.fidelity.distance import Distance, Loss
    from layerimp.fidelity.divergence import Compared, Divergence, compared
    from layerimp.fidelity.generation import (
        PROMPT_TOKENS,
        Continuation,
        Prompt,
        compare_texts,
        continuations,
        end_tokens,
        prompts,
    )
    from layerimp.fidelity.intact import Intact
    from layerimp.fidelity.record import Copying, Fidelity, Generation, Sample, Spread


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in _MODULES:
            if hasattr(loaded := import_module(f"{__name__}.{module}"), name):
                return getattr(loaded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
