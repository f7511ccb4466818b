"""How far a model is from the intact one: its predictions, its copying, and the text that it generates.

The names are loaded on first use, so that importing a record imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "Compared",
    "Comparer",
    "Comparison",
    "Continuation",
    "Copying",
    "Divergence",
    "Fidelity",
    "Generation",
    "Intact",
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

_HOME = {
    "Compared": "divergence",
    "Comparer": "comparer",
    "Comparison": "comparer",
    "Continuation": "generation",
    "Copying": "record",
    "Divergence": "divergence",
    "Fidelity": "record",
    "Generation": "record",
    "Intact": "divergence",
    "Prompt": "generation",
    "Sample": "record",
    "Spread": "record",
    "compare_texts": "generation",
    "compared": "divergence",
    "continuations": "generation",
    "end_tokens": "generation",
    "prompts": "generation",
    "repeated": "copying",
}

if TYPE_CHECKING:
    from layerimp.fidelity.comparer import Comparer, Comparison
    from layerimp.fidelity.copying import repeated
    from layerimp.fidelity.divergence import Compared, Divergence, Intact, compared
    from layerimp.fidelity.generation import Continuation, Prompt, compare_texts, continuations, end_tokens, prompts
    from layerimp.fidelity.record import Copying, Fidelity, Generation, Sample, Spread


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
