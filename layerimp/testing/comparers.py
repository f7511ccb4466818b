"""The contracts of a comparer, checked on tiny models in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from layerimp.blocks.snapshot import Snapshot
from layerimp.errors import LayerimpError
from layerimp.fidelity.comparer import Comparer
from layerimp.fidelity.record import Fidelity
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare
from layerimp.testing.assertions import leaving_the_generator, require, require_unharmed
from layerimp.testing.tiny import batch, padded_batch, tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.fidelity.comparer import Comparison

TEXT = (batch(4, 40, seed=1), padded_batch((36, 5, 20), seed=2))
EQUAL = 1e-6
"""Equal models may differ by so much, in nats."""


def _comparison(comparer: Comparer, intact: PreTrainedModel) -> Comparison:
    fresh = type(comparer)(comparer.config)
    fresh.prepare()
    return fresh.comparison(intact, tiny_tokenizer(), [{**each} for each in TEXT])


def _parted() -> tuple[PreTrainedModel, list[PreTrainedModel]]:
    """Return an intact model, and two pruned models that share its tensors."""
    stack = find_blocks(tiny_model())
    return stack.model, [prepare(stack, removed).beside() for removed in ([1], [1, 2])]


def comparisons_are_sound(comparer: Comparer) -> None:
    """A comparison gives a `Fidelity` that says something; shares are from 0 to 1, and no divergence is below 0."""
    intact, (pruned, _) = _parted()
    fidelity = _comparison(comparer, intact)(pruned)
    require(isinstance(fidelity, Fidelity), f"a comparison gives {type(fidelity).__name__}, not Fidelity")
    said = fidelity.model_dump(exclude_none=True, exclude={"missing"})
    require(bool(said), "a comparison says nothing of a model")
    for name, value in _numbers(said):
        least, most = (0.0, 1.0) if _is_share(name) else (0.0, float("inf"))
        require(least <= value <= most, f"{name} is {value}")


def _numbers(said: dict[str, Any], before: str = "") -> list[tuple[str, float]]:
    """Return all numbers with their names."""
    numbers = []
    for name, value in said.items():
        if isinstance(value, dict):
            numbers += _numbers(value, f"{before}{name}.")
        elif isinstance(value, int | float):
            numbers.append((before + name, value))
    return numbers


def _is_share(name: str) -> bool:
    *_, last = name.split(".")
    return last in {"agreement", "accuracy", "intact", "empty", "loops", "intact_empty", "intact_loops"}


def equal_models_are_equal(comparer: Comparer) -> None:
    """The intact model is at no distance from itself."""
    intact, _ = _parted()
    fidelity = _comparison(comparer, intact)(intact)
    if fidelity.divergence is not None:
        require(
            fidelity.divergence.mean < EQUAL, f"the intact model diverges from itself by {fidelity.divergence.mean}"
        )
    require(fidelity.agreement in (None, 1.0), f"the intact model agrees with itself in {fidelity.agreement}")
    if (copying := fidelity.copying) is not None:
        require(copying.accuracy == copying.intact, "the intact model does not copy as well as itself")
    if (generation := fidelity.generation) is not None:
        require(generation.loops == generation.intact_loops, "the intact model does not loop as often as itself")
        for sample in generation.samples:
            require(sample.text == sample.intact, "the intact model does not continue a prompt as it does itself")


def models_stay(comparer: Comparer) -> None:
    """Weights, hooks, modes and configurations of both models, and the random generators, are as before."""
    intact, (pruned, _) = _parted()
    before = [
        (model, Snapshot.of(model), {name: value.clone() for name, value in model.state_dict().items()})
        for model in (intact, pruned)
    ]
    with leaving_the_generator():
        _comparison(comparer, intact)(pruned)
    for each in before:
        require_unharmed(*each)


def one_comparison_serves_all(comparer: Comparer) -> None:
    """One comparison gives for several models what a fresh one gives for each, in any order."""
    intact, (first, second) = _parted()
    together = _comparison(comparer, intact)
    several = [together(first), together(second), together(first)]
    alone = [_comparison(comparer, intact)(model) for model in (first, second, first)]
    require(several == alone, f"it says {several} by one comparison, and {alone} by several")


def without_a_tokenizer(comparer: Comparer) -> None:
    """Without a tokenizer the comparer compares what it can, or raises a `LayerimpError` that says why."""
    intact, (pruned, _) = _parted()
    try:
        comparer.comparison(intact, None, list(TEXT))(pruned)
    except LayerimpError:
        return


def comparer_contracts() -> dict[str, Callable[[Any], None]]:
    """Return the contracts that a comparer has to keep, by name."""
    return {
        "comparisons are sound": comparisons_are_sound,
        "equal models are equal": equal_models_are_equal,
        "compared models stay as they are": models_stay,
        "one comparison serves all models": one_comparison_serves_all,
        "a missing tokenizer is no failure": without_a_tokenizer,
    }
