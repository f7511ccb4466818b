"""How far a model is from the intact one: its predictions, its copying, and the text that it generates."""

from layerimp.fidelity.copying import repeated
from layerimp.fidelity.divergence import Compared, Divergence, Intact, compared
from layerimp.fidelity.generation import Continuation, Prompt, continuations, end_tokens, generation, prompts
from layerimp.fidelity.record import Copying, Fidelity, Generation, Sample, Spread

__all__ = [
    "Compared",
    "Continuation",
    "Copying",
    "Divergence",
    "Fidelity",
    "Generation",
    "Intact",
    "Prompt",
    "Sample",
    "Spread",
    "compared",
    "continuations",
    "end_tokens",
    "generation",
    "prompts",
    "repeated",
]
