"""The contract of an evaluator, and what it measures."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from layerimp.component import Component
from layerimp.errors import TaskError
from layerimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Document = tuple[str, int | None]
"""A text to calibrate on, and its label where one is wanted."""


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Attributes:
        task: What was measured on.
        name: The metric's name, without a filter suffix.
        value: The number.
        stderr: Its standard error over the documents, or None where there is none.
        higher_is_better: The direction.
    """

    task: str
    name: str
    value: float
    stderr: float | None = None
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if self.stderr is not None:
            object.__setattr__(self, "stderr", float(self.stderr))


def retention(original: Metric, pruned: Metric) -> float | None:
    """How much of a metric is left: pruned/original where higher is better, original/pruned otherwise.

    None where that says nothing: a value is negative, the divisor is 0, or the dividend infinite.
    """
    if min(original.value, pruned.value) < 0:
        return None
    above, below = (pruned, original) if original.higher_is_better else (original, pruned)
    share = above.value / below.value if below.value else math.nan
    return share if math.isfinite(share) else None


def retention_stderr(original: Metric, pruned: Metric) -> float | None:
    """The standard error of a retention to first order, the two metrics' errors taken as independent.

    None where there is no retention, or where one of the errors is not known.
    """
    kept = retention(original, pruned)
    if kept is None or original.stderr is None or pruned.stderr is None:
        return None
    if math.isinf(pruned.value):
        return 0.0  # nothing is left, however far from it the draws are
    errors = (pruned.stderr, original.stderr) if original.higher_is_better else (original.stderr, pruned.stderr)
    divisor = original.value if original.higher_is_better else pruned.value
    error = math.hypot(errors[0], kept * errors[1]) / divisor
    return error if math.isfinite(error) else None


class Evaluator(Component):
    """Measures a model in memory, and leaves it as it was.

    A whole plugin with one:

        from layerimp import Evaluator, Metric, hookimpl


        class Parameters(Evaluator):
            \"\"\"Counts the parameters.\"\"\"

            name = "parameters"
            kind = "cost"

            def evaluate(self, model, tokenizer):
                count = sum(parameter.numel() for parameter in model.parameters())
                return [Metric("model", "parameters", count, higher_is_better=False)]


        @hookimpl
        def layerimp_evaluators():
            return [Parameters]

    An evaluator whose `Config` has a field named like one of the run's own settings (`tasks`, `limit`,
    `num_fewshot`, `batch_size`, `seed`, `task_path`, `data_dir`, `allow_task_code`) receives the run's value.

    Attributes:
        kind: `quality` for what a model can do, compared by retention; `cost` for time and space, reported apart.
        progress: Where to report progress; set by whoever runs the evaluator.
    """

    kind: ClassVar[Literal["quality", "cost"]] = "quality"

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.progress: Progress = SILENT

    def prepare(self) -> None:
        """Find whatever is wrong with the options before any long work starts.

        Raises:
            InputError: something is.
        """

    def check(self, model: PreTrainedModel) -> None:
        """Refuse a model that cannot be measured, before any long work starts.

        Raises:
            ModelError: it cannot.
        """

    @abstractmethod
    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Measure `model`."""
        raise NotImplementedError

    def training_documents(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Sequence[Document]:
        """What its one task trains on, as text to calibrate with; for a classifier with labels.

        Raises:
            TaskError: there is no such text.
        """
        raise TaskError(f"the evaluator {self.name!r} knows no training text")

    def fingerprint(self) -> str | None:
        """A text that changes with everything, besides the model and its tokenizer, that can change the metrics.

        With it the metrics of an intact model are kept and used again. None: never.
        """
        return None
