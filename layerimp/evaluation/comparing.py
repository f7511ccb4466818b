"""Running a comparer, which measures how far models are from the intact one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerimp.blocks.snapshot import unchanged
from layerimp.errors import CalibrationError, ModelError, NonFiniteError, PluginError
from layerimp.fidelity.comparer import Comparer
from layerimp.fidelity.record import Fidelity
from layerimp.progress import About, Progress
from layerimp.registry.attribution import attributing, named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.evaluator import Evaluator
    from layerimp.fidelity.comparer import Comparison


def comparer_of(evaluators: Mapping[str, Evaluator]) -> tuple[str, Comparer] | None:
    """Return the comparer among evaluators, with its label; None if there is none."""
    return next(((label, each) for label, each in evaluators.items() if isinstance(each, Comparer)), None)


class Comparing:
    """Compares models with the intact one. A comparer that fails is not run again, and a line says so.

    A model whose predictions are not numbers is left out alone, and the comparer goes on.

    Args:
        label: The comparer's label.
        comparer: The comparer.
        intact: The intact model; it has to be intact whenever a model is compared.
        tokenizer: The tokenizer of all models.
        progress: Where to report progress.

    Attributes:
        label: The comparer's label.
        failed: Why the comparer failed; None while it works.
        reason: Why the last model was not compared; None if it was.
    """

    def __init__(
        self,
        label: str,
        comparer: Comparer,
        intact: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        progress: Progress,
    ) -> None:
        self.label, self._comparer = label, comparer
        self._intact, self._tokenizer, self._progress = intact, tokenizer, progress
        self._compare: Comparison | None = None
        self.failed: str | None = None
        self.reason: str | None = None

    def of(self, model: PreTrainedModel, text: CalibrationSet, who: str, *, baseline: bool = False) -> Fidelity | None:
        """Return how far a model is from the intact one; None if the comparer failed, or the model is broken.

        A comparer that cannot compare the intact model, or not with this text, has failed.

        The intact model runs when this is called for the first time.

        Args:
            model: The model, beside the intact one.
            text: The text; the same in every call.
            who: The label of the model.
            baseline: Whether it is the model of a baseline.

        Raises:
            PluginError: the comparer changed a model.
            ModelError: this model cannot be compared with the intact one.
        """
        if self.failed is not None:
            return None
        self.reason = None
        try:
            if self._compare is None:
                with self._watching(self._intact, "on the intact model"):
                    self._compare = self._comparer.comparison(self._intact, self._tokenizer, list(text))
            with self._watching(self._intact, ""), self._watching(model, f"on {who}"):
                self._comparer.progress, self._comparer.baseline = About(self._progress, who), baseline
                fidelity = self._compare(model)
                if not isinstance(fidelity, Fidelity):
                    raise PluginError("its comparison gives no Fidelity")
        except (PluginError, NonFiniteError, ModelError, CalibrationError) as error:
            refused = isinstance(error, ModelError | CalibrationError) and self._compare is None
            if not error.names_plugin and not refused:
                raise
            self.reason = str(error)
            if self._compare is not None and isinstance(error, NonFiniteError):
                self._progress.note(f"{who} is not compared with the intact model: {error}")
                return None
            self.failed = self.reason
            self._progress.note(f"the evaluator {self.label} is left out: {error}")
            return None
        return fidelity

    @contextmanager
    def _watching(self, model: PreTrainedModel, where: str) -> Iterator[None]:
        """A context in which a failure names the comparer, and which leaves a model as it is."""
        kind = type(self._comparer)
        with (
            unchanged(model, named("evaluator", self.label, kind)),
            attributing("evaluator", self.label, kind, where),
        ):
            yield
