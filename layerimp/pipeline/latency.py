"""Measures how fast a model is without some of its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerimp.defaults import FOOTPRINT, ORIGINAL
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluation.selection import prepared
from layerimp.pipeline.outline import alike
from layerimp.pruner import counted
from layerimp.recipe import ComponentSpec, Permissions
from layerimp.steps import removed_by
from layerimp.surgery.removal import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from layerimp.blocks.stack import BlockStack
    from layerimp.evaluator import Evaluator
    from layerimp.metric import Metric
    from layerimp.progress import Progress
    from layerimp.recipe import Recipe
    from layerimp.steps import Step


class Clock:
    """Measures the latency of a model without some of its blocks, in the same way as the evaluator `footprint`.

    Blocks with the same structure take equally long. So the latency is measured once for each combination of numbers of
    removed blocks per kind, and noise does not distinguish between plans of equal length.

    Args:
        recipe: The recipe, which may have options for `footprint`.
        stack: The model's blocks.
        tokenizer: The model's tokenizer.
        progress: Where to report progress.
    """

    def __init__(
        self, recipe: Recipe, stack: BlockStack, tokenizer: PreTrainedTokenizerBase, progress: Progress
    ) -> None:
        named = (spec for spec in recipe.evaluators.values() if spec.name == FOOTPRINT)
        spec = next(named, ComponentSpec(name=FOOTPRINT))
        alone = recipe.model_copy(update={"evaluators": {FOOTPRINT: spec}})
        self._evaluators: dict[str, Evaluator] = prepared(alone, Permissions(), progress)
        self._evaluation = Evaluation(stack.model, tokenizer, progress)
        self._stack, self._kinds = stack, alike(stack)
        self._measured: dict[object, Metric] = {}

    def __call__(self, steps: Sequence[Step]) -> Metric:
        """Measure the latency in milliseconds of the model without some steps.

        Raises:
            SurgeryError: the steps cannot be removed exactly.
        """
        if (known := self.known(steps)) is not None:
            return known
        with prepare(self._stack, steps).applied():
            who = f"without {counted(len(steps))}" if steps else ORIGINAL
            metrics = self._evaluation.of(self._evaluators, "cost", who)
        metric = self._measured[self._key(steps)] = next(metric for metric in metrics if metric.name == "latency_ms")
        return metric

    def known(self, steps: Sequence[Step]) -> Metric | None:
        """Return the latency measured without as many blocks of the same kinds; None if not measured yet."""
        return self._measured.get(self._key(steps))

    def _key(self, steps: Sequence[Step]) -> object:
        return tuple(sorted((part.part, self._kinds[part.block]) for part in removed_by(steps)))
