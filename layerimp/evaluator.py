"""The contract of an evaluator, and what it tells of its tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from layerimp.component import Component, Plain
from layerimp.errors import TaskError
from layerimp.metric import Likelihood as Likelihood
from layerimp.metric import Metric as Metric
from layerimp.metric import Stratum as Stratum
from layerimp.metric import mean_and_error as mean_and_error
from layerimp.metric import unigram as unigram
from layerimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Document = tuple[str, int | None]
"""A text to calibrate on, and its label if labels are needed."""


class DataFile(Plain):
    """A local file whose rows an evaluator has read, so that others can tell what was measured."""

    task: str
    """The task that the rows belong to."""
    split: str
    """The split of its data set."""
    path: str
    """The path below the data directory, with `/` between its parts."""
    rows: int
    """The number of rows in the file."""
    sha256: str
    """The SHA-256 of the file, in hex."""
    licence: str = ""
    """The licence of the data set, as a README beside the file states it; empty if none."""


class TaskDetails(Plain):
    """What a task measures, and where its rows come from."""

    task: str
    """The name of the task."""
    dataset: str
    """Its data set on the network; empty if only its code knows it."""
    configuration: str
    """The configuration of the data set; empty if there is none."""
    measured: str
    """The split that is measured."""
    examples: str
    """The split of the examples before each question; empty if they come from elsewhere."""
    training: str
    """The split of text to train on; empty if there is none."""
    shots: int
    """The number of examples before each question."""
    kind: str
    """What is asked of the model."""
    metrics: tuple[str, ...]
    """The names of the metrics."""
    columns: tuple[str, ...]
    """The columns that its templates name."""
    functions: tuple[str, ...]
    """The parts of the task that are functions, which may read other columns, or make some."""
    paths: Mapping[str, tuple[str, ...]]
    """Where the rows are looked for in a data directory, by split, in this order; empty for a task that names its own
    files."""


@dataclass(frozen=True)
class Reading:
    """How much an evaluation of one model reads, about.

    Attributes:
        documents: The documents.
        tokens: The tokens that the model reads, with those that it generates.
        predicted: The positions at which it predicts.
    """

    documents: int
    tokens: float
    predicted: float


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
        kind: `quality` for what a model can do, so that a retained share can be computed; `cost` for time and space;
            `fidelity` for how far a model is from the intact one, which is the kind of a `Comparer`.
        needs_weights: Whether the values of the weights are needed. An evaluator for which this is false also measures
            models that are offloaded; it then gets a model whose parameters are on the meta device.
        progress: Where to report progress; set before the evaluator runs.
    """

    kind: ClassVar[Literal["quality", "cost", "fidelity"]] = "quality"
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

        A grid measures its tasks one at a time.

        Raises:
            InputError: a task does not exist, or cannot be loaded.
        """
        some = type(self)(self.config.model_copy(update={"tasks": tasks}))
        some.progress = self.progress
        some.prepare()
        return some

    def check(self, model: PreTrainedModel) -> None:
        """Refuse a model that cannot be measured, before any long work starts.

        Raises:
            ModelError: the model cannot be measured.
        """

    @abstractmethod
    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Measure `model`."""

    def reading(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, rows: int, length: int
    ) -> Reading | None:
        """How much `evaluate` would read with this model, from a few documents, for `--dry-run`; None if not known.

        Args:
            model: The model, whose parameters are on the meta device.
            tokenizer: The model's tokenizer.
            rows: The rows of the calibration text.
            length: The tokens of such a row.
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

    def data_files(self) -> Sequence[DataFile]:
        """The local files whose rows were read in place of a data set on the network. By default none."""
        return ()

    def texts(self) -> Iterable[str]:
        """The texts on which this evaluator measures, each as a whole; healing on them is refused. By default none."""
        return ()

    def fingerprint(self) -> str | None:
        """A text that changes with everything, besides the model and its tokenizer, that can change the metrics.

        The metrics of an intact model are stored under this text and used again. With None they are not stored.
        """
        return None
