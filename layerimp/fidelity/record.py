"""How far a model is from the intact one, as numbers and texts that stand in a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field

from layerimp.component import Plain
from layerimp.defaults import COLLAPSE

if TYPE_CHECKING:
    from layerimp.fidelity.divergence import Divergence

Share = Annotated[float, Field(ge=0, le=1)]
Nats = Annotated[float, Field(ge=0)]


class Finite(Plain):
    """Base of these records: JSON has no NaN and no infinity, so that none is taken."""

    model_config = ConfigDict(allow_inf_nan=False)


class Spread(Finite):
    """The divergence over all predictions."""

    mean: Nats
    """The mean per prediction, in nats."""
    stderr: float | None
    """Its standard error, clustered by row; null for a single row."""
    median: Nats
    """The median over the predictions, in nats."""
    p90: Nats
    """The 90th percentile."""
    p99: Nats
    """The 99th percentile."""
    max: Nats
    """The largest value."""

    @classmethod
    def of(cls, divergence: Divergence) -> Spread:
        """Summarise divergences."""
        median, p90, p99, most = divergence.quantiles(0.5, 0.9, 0.99, 1.0)
        return cls(mean=divergence.mean, stderr=divergence.stderr, median=median, p90=p90, p99=p99, max=most)


class Copying(Finite):
    """The predictions in the second half of rows that hold the same tokens twice."""

    accuracy: Share
    """The share of the tokens that the model predicts right."""
    stderr: float | None = None
    """Its standard error, clustered by row; null if it is not known, as for a single row."""
    intact: Share
    """The share that the intact model predicts right."""
    divergence: Nats
    """The mean divergence there, in nats."""
    agreement: Share
    """The share of these predictions with the same top token."""

    @classmethod
    def of(cls, divergence: Divergence) -> Copying:
        """Summarise the divergences of these predictions."""
        return cls(
            accuracy=sum(divergence.hits) / divergence.count,
            stderr=divergence.hits_stderr,
            intact=sum(divergence.intact_hits) / divergence.count,
            divergence=divergence.mean,
            agreement=divergence.agreement,
        )


class Sample(Finite):
    """One prompt, and how both models continue it."""

    prompt: str
    """The prompt, or the message if the model is asked in its chat template."""
    chat: bool
    """Whether the prompt is a message in the chat template."""
    intact: str
    """The intact model's continuation."""
    text: str
    """The model's continuation."""


class Generation(Finite):
    """Greedy continuations of the same prompts by both models."""

    same_tokens: float | None = None
    """The mean number of tokens until the continuations first differ; null if all of the few are shown."""
    empty: Share | None = None
    """The share of continuations without text; null if all are shown."""
    loops: Share | None = None
    """The share of continuations that end in a loop; null if all are shown, or have fewer than 32 tokens."""
    prompts: int | None = None
    """The number of continuations; null if it is not known."""
    intact_empty: Share | None = None
    """The intact model's share of continuations without text."""
    intact_loops: Share | None = None
    """The intact model's share of continuations that end in a loop."""
    samples: list[Sample]
    """A few of the continuations."""

    @property
    def collapse(self) -> str | None:
        """What is wrong with the continuations, in words; None if they are not much worse than the intact model's."""
        shares = [
            (self.empty or 0.0, self.intact_empty or 0.0, "are empty"),
            (self.loops or 0.0, self.intact_loops or 0.0, "end in a loop"),
        ]
        if sum(share - intact for share, intact, _ in shares) < COLLAPSE:
            return None
        parts = [
            f"{share:.0%} {what} ({intact:.0%} of the intact model's)"
            for share, intact, what in shares
            if share > intact
        ]
        return f"of the texts it generates, {' and '.join(parts)}"


class Fidelity(Finite):
    """How far a model is from the intact one. What was not measured is null."""

    predictions: int | None = None
    """The number of predictions of the divergence."""
    divergence: Spread | None = None
    """The Kullback-Leibler divergence from the intact model's predictions, in nats."""
    agreement: Share | None = None
    """The share of predictions with the same top token, or of rows with the same label."""
    agreement_stderr: float | None = None
    """Its standard error, clustered by row; null if it is not known, as for a single row."""
    agreement_floor: Share | None = Field(default=None, exclude_if=lambda part: part is None)
    """For a classifier: the agreement of a model that always gives the label which the intact one gives most often."""
    copying: Copying | None = None
    """How well text is copied."""
    generation: Generation | None = None
    """The text that is generated."""
    missing: dict[str, str] = Field(default_factory=dict)
    """Why `copying` or `generation` was not measured, by name."""
