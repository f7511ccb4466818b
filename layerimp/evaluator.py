"""The contract of an evaluator, and what it measures."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from layerimp.component import Component
from layerimp.errors import TaskError
from layerimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Document = tuple[str, int | None]
"""A text to calibrate on, and its label if labels are needed."""


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a task's documents, which a perplexity expresses in some unit.

    All metrics of a task with a likelihood express the same quantity in different units, so that the task counts once.

    Attributes:
        totals: The log-likelihood of each document, in nats [document].
        units: How many units each document has, such as words, bytes or tokens [document].
        unigram: The log-likelihood of each document under a model that only knows how frequent the model's own tokens
            are in the other documents, in nats [document]: what knowing nothing of the context costs (see `unigram`).
            None if not known.
        bits: Whether the metric is the loss in bits per unit rather than a perplexity.
    """

    totals: tuple[float, ...]
    units: tuple[float, ...]
    unigram: tuple[float, ...] | None = None
    bits: bool = False

    @cached_property
    def loss(self) -> float:
        """The loss in nats per unit."""
        return -sum(self.totals) / sum(self.units)

    @property
    def stderr(self) -> float | None:
        """The standard error of the loss over the documents, weighted by their units (Cochran 1977, 6.3).

        None for a single document, and if a log-likelihood is infinite.
        """
        count = len(self.totals)
        if count < 2 or not all(map(math.isfinite, self.totals)):
            return None
        left = (total + self.loss * units for total, units in zip(self.totals, self.units, strict=True))
        return math.sqrt(count / (count - 1) * sum(each**2 for each in left)) / sum(self.units)

    def metric(self, loss: float) -> float:
        """Return the value of the metric at a loss in nats per unit."""
        if self.bits:
            return loss / math.log(2)
        try:
            return math.exp(loss)
        except OverflowError:
            return math.inf


@dataclass(frozen=True)
class Metric:
    """One measured number, and what is needed to compare it fairly with that of another model.

    Optional fields make comparisons more precise. Without `documents` or `likelihood`, two models are compared as if
    measured on different documents; without a `floor`, right answers by chance count as retained.

    Attributes:
        task: The task that was measured.
        name: The metric's name, without a filter suffix.
        value: The number.
        stderr: The standard error over the documents; None if there is none.
        higher_is_better: Whether a higher value is better.
        floor: The value of a model that knows nothing, such as 0.5 for the accuracy of yes or no.
        documents: The value of each document [document], in the same order for all models, if `value` is their mean.
        likelihood: For a perplexity, the log-likelihoods that it is computed from.
        members: For the average of several tasks that are also measured, the names of these tasks, which then count
            only through the average.
        hashes: A whole number below 2^53 for each document [document], made from its content, so that equal documents
            have equal numbers. It decides whether a document is used by a search or confirms the result. None if
            documents are identified only by their position.
    """

    task: str
    name: str
    value: float
    stderr: float | None = None
    higher_is_better: bool = True
    floor: float | None = None
    documents: tuple[float, ...] | None = None
    likelihood: Likelihood | None = None
    members: tuple[str, ...] = ()
    hashes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if self.stderr is not None:
            object.__setattr__(self, "stderr", float(self.stderr))

    @property
    def count(self) -> int | None:
        """The number of documents that were measured; None if not known."""
        values = self.documents if self.likelihood is None else self.likelihood.totals
        return None if values is None else len(values)

    def ends(self, times: float) -> tuple[float, float] | None:
        """Return the ends of an interval of `times` standard errors to either side; for a perplexity, of its loss.

        None if the error is not known.
        """
        if self.likelihood is not None:
            loss, error = self.likelihood.loss, self.likelihood.stderr
            if error is None:
                return None
            return self.likelihood.metric(loss - times * error), self.likelihood.metric(loss + times * error)
        if self.stderr is None or not math.isfinite(self.stderr):
            return None
        return self.value - times * self.stderr, self.value + times * self.stderr


@dataclass(frozen=True)
class DataFile:
    """A local file whose rows an evaluator has read, so that others can tell what was measured.

    Attributes:
        task: The task that the rows belong to.
        split: The split of its data set.
        path: The path below the data directory, with `/` between its parts.
        rows: The number of rows in the file.
        sha256: The SHA-256 of the file, in hex.
        licence: The licence of the data set, as a README beside the file states it; empty if none does.
    """

    task: str
    split: str
    path: str
    rows: int
    sha256: str
    licence: str = ""


@dataclass(frozen=True)
class TaskDetails:
    """What a task measures, and where its rows come from.

    Attributes:
        task: The name of the task.
        dataset: Its data set on the network; empty if only its code knows it.
        configuration: The configuration of the data set; empty if there is none.
        measured: The split that is measured.
        examples: The split of the examples before each question; empty if they come from elsewhere.
        training: The split of text to train on; empty if there is none.
        shots: The number of examples.
        kind: What is asked of the model.
        metrics: The names of the metrics.
        columns: The columns that its templates name.
        functions: The parts of the task that are functions, which may read other columns, or make some.
        paths: Where the rows are looked for in a data directory, by split, in this order; empty for a task that names
            its own files.
    """

    task: str
    dataset: str
    configuration: str
    measured: str
    examples: str
    training: str
    shots: int
    kind: str
    metrics: tuple[str, ...]
    columns: tuple[str, ...]
    functions: tuple[str, ...]
    paths: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Reading:
    """How much an evaluation reads, about, from which its time is estimated.

    Attributes:
        documents: The documents.
        rows: The sequences that the model runs on.
        tokens: The tokens of these sequences.
        predicted: The positions at which the head is computed.
        generated: The tokens that are generated one after the other, at most.
    """

    documents: float = 0.0
    rows: float = 0.0
    tokens: float = 0.0
    predicted: float = 0.0
    generated: float = 0.0

    def __add__(self, other: Reading) -> Reading:
        """Return both together."""
        return Reading(*(own + more for own, more in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Reading:
        """Return the same, several times."""
        return Reading(*(times * count for count in astuple(self)))


def retention(original: Metric, pruned: Metric) -> float | None:
    """Return the plain ratio: pruned/original if higher is better, original/pruned otherwise.

    For a perplexity it depends on the unit, and for an accuracy it counts right answers by chance. The measure without
    these faults is in `layerimp.report.statistics.retained`.

    None if the ratio makes no sense: a value is negative, the divisor is 0, or the dividend is infinite.
    """
    if min(original.value, pruned.value) < 0:
        return None
    above, below = (pruned, original) if original.higher_is_better else (original, pruned)
    share = above.value / below.value if below.value else math.nan
    return share if math.isfinite(share) else None


def unigram(documents: Sequence[Sequence[int]], vocabulary: int) -> tuple[float, ...]:
    """Return the log-likelihood of each document under a model of token frequencies, in nats [document].

    A token's probability is a mixture of its share in all *other* documents and of 1 / `vocabulary`. All documents have
    the same mixture weight, which minimises their total loss, so that nothing has to be chosen.

    Args:
        documents: The tokens of each document that the model predicts.
        vocabulary: The number of possible tokens.
    """
    import numpy as np
    from scipy.optimize import minimize_scalar

    counts = [Counter(tokens) for tokens in documents]
    copies = Counter(map(tuple, documents))  # copies of a document do not count as other documents
    total: Counter[int] = Counter()
    for each in counts:
        total.update(each)
    times, shares = [], []
    for tokens, own in zip(documents, counts, strict=True):
        many = copies[tuple(tokens)]
        others = np.array([total[token] - many * often for token, often in own.items()], dtype=np.float64)
        times.append(np.array(list(own.values()), dtype=np.float64))
        shares.append(others / max(total.total() - many * len(tokens), 1))

    def log_likelihoods(uniform: float) -> list[float]:
        return [
            float(np.sum(often * np.log((1 - uniform) * share + uniform / vocabulary)))
            for often, share in zip(times, shares, strict=True)
        ]

    # The loss is convex in the weight, and infinite at 0 if a document has a token that no other document has.
    best = minimize_scalar(lambda uniform: -sum(log_likelihoods(uniform)), bounds=(0.0, 1.0), method="bounded").x
    return tuple(log_likelihoods(float(best)))


class Evaluator(Component):
    """Measures a model in memory, and leaves it as it was.

    A whole plugin with one:

        from layerimp import Evaluator, Metric, hookimpl


        class Parameters(Evaluator):
            \"\"\"Counts the parameters.\"\"\"

            name = "parameters"
            kind = "cost"
            needs_weights = False

            def evaluate(self, model, tokenizer):
                count = sum(parameter.numel() for parameter in model.parameters())
                return [Metric("model", "parameters", count, higher_is_better=False)]


        @hookimpl
        def layerimp_evaluators():
            return [Parameters]

    If the `Config` of an evaluator has a field with the name of one of the run's settings (`tasks`, `limit`,
    `limits`, `num_fewshot`, `batch_size`, `seed`, `task_path`, `data_dir`, `allow_task_code`), the field gets the run's
    value.

    Attributes:
        kind: `quality` for what a model can do, so that a retained share can be computed; `cost` for time and space.
        needs_weights: Whether the values of the weights are needed. An evaluator for which this is false also measures
            models that are offloaded; it then gets a model whose parameters are on the meta device.
        progress: Where to report progress; set before the evaluator runs.
    """

    kind: ClassVar[Literal["quality", "cost"]] = "quality"
    needs_weights: ClassVar[bool] = True

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.progress: Progress = SILENT

    def prepare(self) -> None:
        """Check the options before any long work starts.

        Raises:
            InputError: an option is wrong, such as a task that does not exist.
        """

    def for_tasks(self, *tasks: str) -> Self:
        """Make and prepare an evaluator of some of the tasks, with the other options of this one.

        A grid measures its tasks one at a time, and a run leaves out the tasks of the intact model that are known from
        earlier runs. In a run this evaluator, with all the tasks, is prepared first.

        Raises:
            InputError: a task does not exist, or cannot be loaded.
        """
        some = type(self)(self.config.model_copy(update={"tasks": tasks}))
        some.progress = self.progress
        some.prepare()
        return some

    def reported(self) -> frozenset[str]:
        """The names under which the tasks are reported (`Metric.task`); by default those in the option `tasks`.

        A task in the options may stand for others, such as the tasks of a group. Metrics of several tasks that are
        measured together are stored by task only if each metric has one of these names.
        """
        return frozenset(getattr(self.config, "tasks", ()))

    def check(self, model: PreTrainedModel) -> None:
        """Refuse a model that cannot be measured, before any long work starts.

        Raises:
            ModelError: the model cannot be measured.
        """

    @abstractmethod
    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Measure `model`."""
        raise NotImplementedError

    def reading(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Reading | None:
        """How much `evaluate` would read with this model, about, so that its time can be told ahead; None if not known.

        The answer has to be quick: a few documents are enough to estimate the rest. In a dry run the model's parameters
        are on the meta device.
        """
        return None

    def training_documents(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Sequence[Document]:
        """The training split of the evaluator's one task, as text to calibrate with; with labels for a classifier.

        Raises:
            TaskError: the evaluator or the task has no training text.
        """
        raise TaskError(f"the evaluator {self.name!r} has no training text")

    def known_tasks(self, containing: str = "") -> Mapping[str, str]:
        """The tasks that this evaluator knows, by name, each with a line that describes it. By default none.

        Args:
            containing: Only tasks whose names contain this text. If it is empty and there are too many tasks, an
                evaluator may leave out all but those that come with layerimp and those in its options.
        """
        return {}

    def details(self) -> Sequence[TaskDetails]:
        """What the tasks in the options measure, and where their rows come from. By default not known.

        Raises:
            InputError: a task does not exist.
        """
        return ()

    def fetch(self, directory: Path) -> Sequence[DataFile]:
        """Write the rows of the tasks in the options into a data directory, and return its files. By default none.

        Raises:
            InputError: a task does not exist, or its rows cannot be fetched.
        """
        return ()

    def data_files(self) -> Sequence[DataFile]:
        """The local files whose rows were read in place of a data set on the network. By default none."""
        return ()

    def texts(self) -> Iterable[str]:
        """The texts on which this evaluator measures, each as a whole; healing on them is refused. By default none."""
        return ()

    def fingerprint(self) -> str | None:
        """A text that changes with everything, besides the model and its tokenizer, that can change the metrics.

        The metrics of an intact model are stored under this text and used again. With None they are not stored. An
        evaluator with the option `tasks` is asked for the text of each task alone (see `for_tasks`).
        """
        return None
