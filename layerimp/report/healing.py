"""What healing brought back, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerimp.report.results.models import RepairedGap


def recovery(loss: Mapping[str, float], accuracy: Mapping[str, float] | None, recovered: float | None) -> str:
    """Return what healing brought back, on text that was used for no choice, and what the model had back before.

    Args:
        loss: The mean loss of each model, as in `Repaired`; `healed_before` is that of a model that was healed already.
        accuracy: The accuracies of the same models; None or empty for language models.
        recovered: The share of the lost quality that came back.
    """
    lost = "accuracy" if accuracy else "loss"
    if recovered is None:
        back = f"pruning did not {'lower the accuracy' if accuracy else 'raise the loss'}"
    elif recovered < 0:
        back = f"healing lost {-recovered:.0%} more of the {lost}"
    else:
        back = f"{recovered:.0%} of the lost {lost} came back"
    costs, earlier = accuracy or loss, ""
    if recovered is not None and "healed_before" in costs:
        share = (costs["pruned"] - costs["healed_before"]) / (costs["pruned"] - costs["intact"])
        same = loss["healed"] == loss["healed_before"]
        effect = ", which changed nothing" if same else ", which made the model worse" if share > recovered else ""
        earlier = f"; {share:.0%} had come back before this healing{effect}"
    losses = ", ".join(f"{_named(model)} {value:.3f}" for model, value in loss.items())
    shares = ", ".join(f"{_named(model)} {value:.1%}" for model, value in (accuracy or {}).items())
    return f"{back} on the held-out rows ({shares and f'accuracy: {shares}; '}nats per prediction: {losses}){earlier}"


def _named(model: str) -> str:
    return model.replace("_", " ")


def gap_line(gap: RepairedGap) -> str:
    """Return what was done at a gap, in one line."""
    numbers = ", ".join(f"{_named(name)} {value:.3g}" for name, value in gap.numbers.items())
    return f"{gap.gap}: {gap.done}{numbers and f' ({numbers})'}{gap.why and f'; {gap.why}'}"
