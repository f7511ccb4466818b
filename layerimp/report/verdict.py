"""Whether a smaller model is good or poor, by the limits of `layerimp.defaults.POOR`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp.defaults import COPIES, POOR

if TYPE_CHECKING:
    from layerimp.fidelity.record import Fidelity
    from layerimp.report.results.measures import Retained
    from layerimp.report.results.shrunk import Verdict


def judged(fidelity: Fidelity | None, retained: Retained | None) -> tuple[Verdict, list[str]]:
    """Hold what was measured against the limits: return the verdict, and why it is poor."""
    share = None if retained is None else retained.worst
    if fidelity is None and share is None:
        return "not measured", []
    reasons = [] if fidelity is None else list(_far(fidelity))
    if share is not None and share.mean < (least := POOR["retained"]):
        reasons.append(f"it retains {share.mean:.1%} of what the intact model knows in the tasks, below {least:.0%}")
    return ("poor" if reasons else "good"), reasons


def _far(fidelity: Fidelity) -> Iterator[str]:
    """Yield what is too far from the intact model."""
    divergence, copying = fidelity.divergence, fidelity.copying
    if (floor := fidelity.agreement_floor) is not None and fidelity.agreement is not None:
        if fidelity.agreement - floor < POOR["labels"] * (1 - floor):
            yield (
                f"{fidelity.agreement:.0%} of its labels are the intact model's, and {floor:.0%} would be if it always "
                "gave the most frequent one"
            )
        return
    yield from _apart(None if divergence is None else divergence.mean, fidelity.agreement)
    if copying is not None and copying.intact > COPIES and copying.accuracy < POOR["copying"] * copying.intact:
        yield f"it copies {copying.accuracy:.0%} of a repeated text, and the intact model {copying.intact:.0%}"
    if fidelity.generation is not None and (collapse := fidelity.generation.collapse):
        yield collapse


def _apart(divergence: float | None, agreement: float | None) -> Iterator[str]:
    """Yield which of two measures are beyond their limits, with digits that tell them from these."""
    if divergence is not None and divergence > (most := POOR["divergence"]):
        yield f"its predictions are {divergence:.3f} nats from the intact model's, above {most:g}"
    if agreement is not None and agreement < (least := POOR["agreement"]):
        yield f"{agreement:.1%} of its top choices are the intact model's, below {least:.0%}"
