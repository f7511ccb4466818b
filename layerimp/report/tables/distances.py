"""The figures of fidelity that tables show, and the continuations of both models side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerimp.defaults import ORIGINAL
from layerimp.fidelity.record import Fidelity

if TYPE_CHECKING:
    from layerimp.report.results.comparison import ModelResults

Number = Callable[[Fidelity], float | None]


@dataclass(frozen=True)
class Figure:
    """A number of a model's fidelity.

    Attributes:
        of: Returns it; None if it was not measured.
        higher_is_better: The direction.
        intact: Returns the same number of the intact model.
    """

    of: Number
    higher_is_better: bool
    intact: Number = lambda fidelity: None


def _of(part: str, name: str) -> Number:
    """Return what gives a number in a part of a fidelity; None if the part was not measured."""

    def number(fidelity: Fidelity) -> float | None:
        measured = getattr(fidelity, part)
        return None if measured is None else float(getattr(measured, name))

    return number


FIGURES: Mapping[str, Figure] = {
    "divergence": Figure(_of("divergence", "mean"), higher_is_better=False),
    "divergence p99": Figure(_of("divergence", "p99"), higher_is_better=False),
    "agreement": Figure(lambda fidelity: fidelity.agreement, higher_is_better=True),
    "copying": Figure(_of("copying", "accuracy"), higher_is_better=True, intact=_of("copying", "intact")),
    "same tokens": Figure(_of("generation", "same_tokens"), higher_is_better=True),
    "empty": Figure(_of("generation", "empty"), higher_is_better=False, intact=_of("generation", "intact_empty")),
    "loops": Figure(_of("generation", "loops"), higher_is_better=False, intact=_of("generation", "intact_loops")),
}
"""The figures by name."""
SHARES = frozenset({"agreement", "copying", "empty", "loops"})
"""The figures that are shares."""


@dataclass(frozen=True)
class Continued:
    """A prompt, and how models continue it.

    Attributes:
        prompt: The prompt, or the message.
        chat: Whether it is a message in the chat template.
        texts: The continuations, by label; the intact model's comes first.
    """

    prompt: str
    chat: bool
    texts: Mapping[str, str]


def continued(model: ModelResults, without: Collection[str] = ()) -> list[Continued]:
    """Return the continuations side by side, of the first model of each contender.

    Args:
        model: The results for a model.
        without: The labels of scorers that are not shown.
    """
    by_prompt: dict[tuple[str, bool], dict[str, str]] = {}
    for removal in model.removals:
        fidelity = removal.models[0].fidelity
        if fidelity is not None and fidelity.generation is not None and removal.scorer not in without:
            for sample in fidelity.generation.samples:
                texts = by_prompt.setdefault((sample.prompt, sample.chat), {ORIGINAL: sample.intact})
                texts.setdefault(removal.label, sample.text)
    return [Continued(prompt, chat, texts) for (prompt, chat), texts in by_prompt.items()]
