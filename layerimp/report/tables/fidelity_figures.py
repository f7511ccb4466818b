"""The figures of fidelity that tables show, and the continuations of both models side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerimp.defaults import ORIGINAL
from layerimp.fidelity.record import Fidelity
from layerimp.report.words import Show, number, percentage

if TYPE_CHECKING:
    from layerimp.report.results.comparison import ModelResults

Number = Callable[[Fidelity], float | None]
_GENERATED = "of texts that are generated"


@dataclass(frozen=True)
class Figure:
    """A number of a model's fidelity.

    Attributes:
        of: Returns it; None if it was not measured.
        higher_is_better: The direction.
        intact: Returns the same number of the intact model.
        stderr: Returns the standard error; None if it is not known.
        show: Shows the number.
        meaning: What it is, below a table; empty if another figure says so.
    """

    of: Number
    higher_is_better: bool = False
    intact: Number = lambda fidelity: None
    stderr: Number = lambda fidelity: None
    show: Show = number
    meaning: str = ""


def _of(path: str) -> Number:
    """Return what gives a number by the names that lead to it in a fidelity; None if it was not measured."""

    def value_of(fidelity: Fidelity) -> float | None:
        value: Any = fidelity
        for name in path.split("."):
            value = None if value is None else getattr(value, name)
        return None if value is None else float(value)

    return value_of


def _loops_stderr(fidelity: Fidelity) -> float | None:
    """Return the standard error of the share of loops, with two more texts of either kind.

    So it is not 0 where no text loops (Agresti and Coull 1998, doi:10.1080/00031305.1998.10480550).
    """
    generation = fidelity.generation
    if generation is None or generation.loops is None or not generation.prompts:
        return None
    count = generation.prompts + 4
    share = (generation.loops * generation.prompts + 2) / count
    return math.sqrt(share * (1 - share) / count)


FIGURES: Mapping[str, Figure] = {
    "divergence": Figure(
        _of("divergence.mean"),
        stderr=_of("divergence.stderr"),
        meaning="from the intact model's predictions, in nats",
    ),
    "divergence p99": Figure(_of("divergence.p99")),
    "agreement": Figure(
        _of("agreement"),
        higher_is_better=True,
        stderr=_of("agreement_stderr"),
        show=percentage,
        meaning="the same top prediction",
    ),
    "copying": Figure(
        _of("copying.accuracy"),
        higher_is_better=True,
        intact=_of("copying.intact"),
        stderr=_of("copying.stderr"),
        show=percentage,
        meaning="tokens of repeated text predicted right",
    ),
    "same tokens": Figure(_of("generation.same_tokens"), higher_is_better=True, meaning=_GENERATED),
    "empty": Figure(
        _of("generation.empty"), intact=_of("generation.intact_empty"), show=percentage, meaning=_GENERATED
    ),
    "loops": Figure(
        _of("generation.loops"),
        intact=_of("generation.intact_loops"),
        stderr=_loops_stderr,
        show=percentage,
        meaning=_GENERATED,
    ),
}
"""The figures by name."""


def figures_note(names: Collection[str]) -> str:
    """Return what explains some figures below a table, by their names."""
    by_meaning: dict[str, list[str]] = {}
    for name, figure in FIGURES.items():
        if name in names and figure.meaning:
            by_meaning.setdefault(figure.meaning, []).append(name)
    return "; ".join(f"{', '.join(figures)}: {meaning}" for meaning, figures in by_meaning.items())


def figures(fidelity: Fidelity) -> str:
    """Show all figures in a line, with the intact model's in brackets."""
    parts = []
    for name, figure in FIGURES.items():
        value, intact = figure.of(fidelity), figure.intact(fidelity)
        if value is not None:
            parts.append(
                f"{name} {figure.show(value)}" + ("" if intact is None else f" (intact {figure.show(intact)})")
            )
    return ", ".join(parts)


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

    @property
    def lines(self) -> list[str]:
        """The prompt and the texts, each in one line."""
        prompt = f"{'message' if self.chat else 'prompt'}: {' '.join(self.prompt.split())}"
        return [prompt, *(f"{label}: {' '.join(text.split()) or '(nothing)'}" for label, text in self.texts.items())]


def continued(model: ModelResults, without: Collection[str] = ()) -> list[Continued]:
    """Return the continuations side by side, of the first model of each contender.

    Args:
        model: The results for a model.
        without: The labels of scorers that are not shown.
    """
    shown = {each.label: each.models[0].fidelity for each in model.removals if each.scorer not in without}
    return texts_of({label: fidelity for label, fidelity in shown.items() if fidelity is not None})


def texts_of(fidelities: Mapping[str, Fidelity]) -> list[Continued]:
    """Return the continuations of models, by label, side by side."""
    by_prompt: dict[tuple[str, bool], dict[str, str]] = {}
    for label, fidelity in fidelities.items():
        for sample in fidelity.generation.samples if fidelity.generation else ():
            texts = by_prompt.setdefault((sample.prompt, sample.chat), {ORIGINAL: sample.intact})
            texts.setdefault(label, sample.text)
    return [Continued(prompt, chat, texts) for (prompt, chat), texts in by_prompt.items()]
