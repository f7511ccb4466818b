"""The contracts of a comparer, checked on tiny models in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.errors import LayerimpError
from layerimp.fidelity.comparer import Comparer
from layerimp.fidelity.record import Fidelity
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare
from layerimp.testing.contracts import Contracts, require, unharmed
from layerimp.testing.tiny import batch, padded_batch, tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.fidelity.comparer import Comparison

TEXT = (batch(4, 40, seed=1), padded_batch((36, 5, 20), seed=2))
EQUAL = 1e-6
"""Equal models may differ by so much, in nats."""


def _parted() -> tuple[PreTrainedModel, list[PreTrainedModel]]:
    """Return an intact model, and two pruned models that share its tensors."""
    stack = find_blocks(tiny_model())
    return stack.model, [prepare(stack, removed).beside() for removed in ([1], [1, 2])]


class ComparerContracts(Contracts[Comparer]):
    """The contracts of a comparer."""

    def _comparison(self, intact: PreTrainedModel) -> Comparison:
        fresh = self._fresh()
        fresh.prepare()
        return fresh.comparison(intact, tiny_tokenizer(), [{**each} for each in TEXT])

    def comparisons_are_sound(self) -> None:
        """A comparison gives a `Fidelity` that says something; `Fidelity` itself refuses numbers out of range."""
        intact, (pruned, _) = _parted()
        fidelity = self._comparison(intact)(pruned)
        require(isinstance(fidelity, Fidelity), f"a comparison gives {type(fidelity).__name__}, not Fidelity")
        measured = fidelity.model_dump(exclude_none=True, exclude={"missing"})
        require(bool(measured), "a comparison says nothing of a model")

    def equal_models_are_equal(self) -> None:
        """The intact model is at no distance from itself."""
        intact, _ = _parted()
        fidelity = self._comparison(intact)(intact)
        if (divergence := fidelity.divergence) is not None:
            require(divergence.mean < EQUAL, f"the intact model diverges from itself by {divergence.mean}")
        require(fidelity.agreement in (None, 1.0), f"the intact model agrees with itself in {fidelity.agreement}")
        if (copying := fidelity.copying) is not None:
            require(copying.accuracy == copying.intact, "the intact model does not copy as well as itself")
        if (generation := fidelity.generation) is not None:
            require(generation.loops == generation.intact_loops, "the intact model does not loop as often as itself")
            for sample in generation.samples:
                require(sample.text == sample.intact, "the intact model does not continue a prompt as it does itself")

    def compared_models_stay_as_they_are(self) -> None:
        """Weights, hooks, modes and configurations of both models, and the random generators, are as before."""
        intact, (pruned, _) = _parted()
        with unharmed(intact, pruned):
            self._comparison(intact)(pruned)

    def one_comparison_serves_all_models(self) -> None:
        """One comparison gives for several models what a fresh one gives for each, in any order."""
        intact, (first, second) = _parted()
        together = self._comparison(intact)
        several = [together(first), together(second), together(first)]
        alone = [self._comparison(intact)(model) for model in (first, second, first)]
        require(several == alone, f"it says {several} by one comparison, and {alone} by several")

    def a_missing_tokenizer_is_no_failure(self) -> None:
        """Without a tokenizer the comparer compares what it can, or raises a `LayerimpError` that says why."""
        intact, (pruned, _) = _parted()
        try:
            self.component.comparison(intact, None, list(TEXT))(pruned)
        except LayerimpError:
            return
