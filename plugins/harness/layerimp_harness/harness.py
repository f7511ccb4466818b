"""The evaluator `harness`: runs lm-eval's tasks on a model in memory, and returns metrics."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from layerimp.errors import LayerimpError, ModelError, TaskError, listing
from layerimp.evaluator import Evaluator, Metric
from layerimp_harness.attribution import attribute_to_task
from layerimp_harness.config import HarnessConfig
from layerimp_harness.isolation import contained, contained_by
from layerimp_harness.stage import LazyStage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.evaluator import DataFile, Document, Reading, TaskDetails
    from layerimp_harness.classifier import Answering
    from layerimp_harness.tasks import TaskSet


LONG = 20
"""The number of characters from which on a text is more than a label or a word."""


class Harness(Evaluator):
    """Tasks of lm-evaluation-harness, on the model in memory, each metric with its standard error.

    The model, the tokenizer, and the random generators and output files of the process are left as they were.
    """

    name = "harness"
    kind = "quality"
    reference = "Gao et al., A framework for few-shot language model evaluation (lm-evaluation-harness)"

    Config = HarnessConfig
    config: HarnessConfig

    def __init__(self, config: HarnessConfig | None = None) -> None:
        super().__init__(config)
        self._loaded: TaskSet | None = None

    def known_tasks(self, containing: str = "") -> Mapping[str, str]:
        """Return the names and descriptions of tasks.

        Args:
            containing: A part of the name. Without it, the result holds the tasks that ship with plugins and those of
                `task_path`; with it, also those of lm-evaluation-harness.

        Raises:
            TaskError: `task_path` is not a directory.
        """
        from layerimp_harness.tasks import described

        return described(self.config.task_path, containing)

    def prepare(self) -> None:
        """Find, check and load the tasks and their data, so that invalid input fails before the model runs.

        Raises:
            UnknownNameError: a task does not exist, or the option `limits` names one that is not measured.
            TaskError: a task cannot be read or is not allowed, its data set cannot be loaded, or the option `labels`
                names a choice of no task.
        """
        loaded, config = self._tasks(), self.config
        if config.limits:
            with contained(config.seed):  # lm-eval draws a random number whenever it tells the name of a task
                from layerimp_harness.limits import check_names

                check_names(loaded.built, config.limits)
        if config.labels:
            with contained_by(config):
                from layerimp_harness.classifier import choices_of

                known = {choice for task in loaded.tasks.values() for choice in choices_of(task)}
            if unknown := config.labels.keys() - known:
                raise TaskError(f"no task has the choice {min(unknown)!r}, which the option labels names")

    def for_tasks(self, *tasks: str) -> Self:
        """Make an evaluator of some tasks; the option `labels` may name choices of others. Nothing is loaded twice.

        Raises:
            UnknownNameError: a task does not exist.
            TaskError: a task cannot be read or is not allowed, or its data set cannot be loaded.
        """
        some = type(self)(self.config.model_copy(update={"tasks": tasks}))
        some.progress = self.progress
        some._loaded = None if self._loaded is None else self._loaded.only(tasks)
        some._tasks()
        return some

    def check(self, model: PreTrainedModel) -> None:
        """Refuse a model that cannot answer the tasks.

        Raises:
            ModelError: the model neither predicts the next token nor classifies.
            TaskError: the model is a classifier, and a task asks for something that a classifier cannot answer.
        """
        if not model.can_generate():
            self._answering(model)

    def evaluate(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> list[Metric]:
        """Measure `model` on every task; without tasks, return no metrics.

        Raises:
            UnknownNameError: a task does not exist.
            TaskError: a task cannot be read or is not allowed, its data set cannot be loaded, or one of its requests
                does not fit the tokenizer, the model or the memory.
            ModelError: the model neither predicts the next token nor classifies.
            NonFiniteError: the logits, or a metric, are NaN.
        """
        if not self.config.tasks:
            return []
        if tokenizer is None:
            raise TaskError("the harness needs a tokenizer")
        self.check(model)
        from layerimp.blocks import in_eval_mode

        loaded, config = self._tasks(), self.config

        def requests() -> int:
            return sum(len(task.instances) for task in loaded.tasks.values())

        with contained(config.seed):  # lm-eval draws a random number whenever it tells the name of a task
            names = ", ".join(loaded.names)
        stage = LazyStage(self.progress, f"evaluate {names}", requests)
        with (
            contained_by(config, model.device),
            in_eval_mode(model),
            stage,
        ):
            from layerimp_harness.classifier import OF_WORDING, ClassifierInMemory
            from layerimp_harness.lm_eval_names import evaluate
            from layerimp_harness.metrics import collect
            from layerimp_harness.model import ModelInMemory

            limits = {"batch_size": config.batch_size, "max_length": config.max_length}
            lm: ModelInMemory | ClassifierInMemory
            if model.can_generate():
                lm = ModelInMemory(model, tokenizer, **limits, advance=stage.advance)
            else:
                answers = self._answering(model)
                lm = ClassifierInMemory(model, tokenizer, tasks=answers, **limits, advance=stage.advance)
            for task in loaded.tasks.values():
                task.set_fewshot_seed(config.seed)
            try:
                results = evaluate(
                    lm=lm,
                    task_dict={"tasks": loaded.tasks, "groups": loaded.groups},
                    bootstrap_iters=0,  # lm-eval's bootstrap forks, prints and does not support weighted perplexity
                    log_samples=True,
                    confirm_run_unsafe_code=config.allow_task_code,
                )
            except LayerimpError:
                raise
            except Exception as error:
                attribute_to_task(error)
                raise
            predicted = (lm.predicted, lm.vocabulary) if isinstance(lm, ModelInMemory) else (None, 0)
            draws, seed = config.bootstrap, config.seed
            metrics = collect(results, loaded.tasks, loaded.groups, predicted, draws=draws, seed=seed)
            return metrics if model.can_generate() else [metric for metric in metrics if metric.name not in OF_WORDING]

    def reading(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, rows: int, length: int
    ) -> Reading | None:
        """Return how much the tasks read, from the first documents of each; None without a tokenizer.

        Raises:
            UnknownNameError: a task does not exist.
            TaskError: a task cannot be read or is not allowed, or its data set cannot be loaded.
        """
        if tokenizer is None:
            return None
        from layerimp_harness.reading import reading

        with contained_by(self.config):
            return reading(self._tasks().tasks.values(), tokenizer)

    def training_documents(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Sequence[Document]:
        """Return the training split of the only task: prompts with answers, running text, or a classifier's input.

        Raises:
            UnknownNameError: the task does not exist.
            TaskError: the task cannot be loaded, stands for several tasks, or has no training split.
        """
        from layerimp.models import classifies
        from layerimp_harness.training import TrainingDocuments

        loaded = self._tasks()
        if len(loaded.tasks) != 1:
            raise TaskError(f"{self.config.tasks[0]!r} is several tasks; name one of them: {listing(loaded.tasks)}")
        ((name, task),) = loaded.tasks.items()
        asked = classifies(model) and task.OUTPUT_TYPE == "multiple_choice"
        answers = self._answering(model) if asked else {}
        return TrainingDocuments(task, answers.get(name), str(tokenizer.sep_token or " "), self.config)

    def texts(self) -> list[str]:
        """Return the texts of the tasks' documents: every longer field, and the document as a few-shot example.

        Raises:
            UnknownNameError: a task does not exist.
            TaskError: a task cannot be read or is not allowed, or its data set cannot be loaded.
        """
        from layerimp_harness.training import worded

        loaded, texts = self._tasks(), list[str]()
        with contained_by(self.config):
            for task in loaded.tasks.values():
                for _number, document in task.doc_iterator():
                    texts += (value for value in document.values() if isinstance(value, str) and len(value) >= LONG)
                    with suppress(Exception):  # the document cannot be an example; its fields are enough
                        texts.append(worded(task, document))
        return texts

    def details(self) -> Sequence[TaskDetails]:
        """Return what the tasks measure and where their rows come from, without reading any.

        Raises:
            UnknownNameError: a task does not exist.
            TaskError: a task cannot be read or is not allowed.
        """
        config = self.config
        with contained_by(config):
            from layerimp_harness.details import details
            from layerimp_harness.tasks import find_tasks, shots_of

            tasks = find_tasks(config).tasks.values()
            return [details(task, shots_of(task, config.num_fewshot), config.data_dir) for task in tasks]

    def data_files(self) -> Sequence[DataFile]:
        """Return the local files of rows that were read in place of the hub.

        Raises:
            UnknownNameError: a task does not exist.
            TaskError: a task cannot be read or is not allowed, or its data set cannot be loaded.
        """
        return self._tasks().data_files()

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of everything that can change the metrics, except the model and its tokenizer.

        Raises:
            UnknownNameError: a task does not exist.
            TaskError: a task cannot be read or is not allowed, or its data set cannot be loaded.
        """
        loaded = self._tasks()
        with contained_by(self.config):
            from layerimp_harness.fingerprint import digest

            return digest(loaded, self.config)

    def _answering(self, model: PreTrainedModel) -> dict[str, Answering]:
        """Return how a classifier answers each task."""
        from layerimp.models import classifies

        if not classifies(model):
            kind = type(model).__name__
            raise ModelError(f"the harness measures models that predict the next token, and classifiers, not {kind}")
        loaded, config = self._tasks(), self.config
        with contained_by(config):
            from layerimp_harness.classifier import answering

            tasks = loaded.tasks.items()
            return {name: answering(task, model, config.fields, config.labels) for name, task in tasks}

    def _tasks(self) -> TaskSet:
        if self._loaded is None:
            with contained_by(self.config):
                from layerimp_harness.tasks import load_tasks

                self._loaded = load_tasks(self.config)
        return self._loaded
