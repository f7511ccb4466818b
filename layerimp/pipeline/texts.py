"""The texts that a recipe names, read for the loaded model. `layerimp.calibration.splits` says which serves what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from layerimp.calibration.documents import Reader, check_beginning, check_source, documents_in, is_dataset, task_of
from layerimp.calibration.further_text import FurtherText, Read
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import CalibrationSet, Corpus, read_corpus
from layerimp.calibration.splits import few_judges, for_fidelity, for_judging
from layerimp.checkpoint.record import ReservedText
from layerimp.errors import CalibrationError, OptionError, TaskError
from layerimp.evaluation.selection import comparer_options, for_training
from layerimp.models.traits import classifies
from layerimp.pipeline.resolve import source_anywhere
from layerimp.registry.assets import assets
from layerimp.registry.attribution import attributing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layerimp.evaluator import Document, Evaluator
    from layerimp.fidelity import Fidelity
    from layerimp.fidelity.record import Sample
    from layerimp.pipeline.stages import Loaded
    from layerimp.progress import Progress
    from layerimp.recipe import Permissions, Recipe


def check_calibration(recipe: Recipe, permissions: Permissions, progress: Progress) -> Evaluator | None:
    """Check, before a model is loaded, that the calibration text and the further text exist and begin as they should.

    Returns:
        The evaluator of the task whose training split is the text; None for other texts.

    Raises:
        InputError: the text or the task does not exist, contradicts another option, or cannot be read.
    """
    spec = recipe.calibration
    reader = Reader(spec.field)
    if (other := comparer_options(recipe).text) is not None and task_of(other) is None:
        check_source(other, packing=spec.packing)
    if recipe.heal_text is not None:
        if (further := task_of(recipe.heal_text)) is None:
            check_source(recipe.heal_text, again=True)
            check_beginning(recipe.heal_text, reader)
        else:
            for_training(recipe, further, permissions, progress)
    if (task := task_of(str(spec.source))) is None:
        check_source(str(spec.source), packing=spec.packing, label_field=spec.label_field)
        check_beginning(str(spec.source), reader)
        return None
    if spec.label_field or ("field" in spec.model_fields_set and spec.field != "text"):
        raise OptionError(f"{spec.source} says itself where its text and its labels are; leave the fields out")
    return for_training(recipe, task, permissions, progress)


def check_data_sets(recipe: Recipe) -> None:
    """Read a document of each data set that is calibrated or healed on, since one may be out of reach.

    Raises:
        CalibrationError: one of them cannot be read.
    """
    for source in filter(None, (recipe.calibration.source, recipe.heal_text)):
        if task_of(source) is None and is_dataset(source):
            next(documents_in(source, Reader(recipe.calibration.field)), None)


@dataclass(frozen=True)
class Texts:
    """Reads the texts that a recipe names.

    Attributes:
        recipe: The recipe, settled. Its evaluator of fidelity may name another text, and the number of rows.
        loaded: The model that reads the texts.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
    """

    recipe: Recipe
    loaded: Loaded
    permissions: Permissions
    progress: Progress

    def calibration(self, trained_on: Evaluator | None) -> Corpus:
        """Read the documents of the calibration text.

        Args:
            trained_on: The evaluator of the task whose training split is the text; None for other texts.

        Raises:
            CalibrationError: the text cannot be read.
        """
        with self.progress.stage(f"read {self.recipe.calibration.source}"):
            label2id = {name: int(number) for name, number in (self.loaded.model.config.label2id or {}).items()}
            spec = self.recipe.calibration
            return self._corpus(str(spec.source), Reader(spec.field, spec.label_field, label2id), trained_on)

    def for_fidelity(self, calibration: Corpus, without: frozenset[str]) -> CalibrationSet:
        """Draw the text that fidelity is measured on, from documents that no draw of calibration text reads.

        Args:
            calibration: The documents of the calibration text.
            without: The hashes of the documents that all draws of calibration text read.

        Returns:
            The rows; fewer than asked for, or none, if there is too little text.

        Raises:
            CalibrationError: a text cannot be read.
        """
        if (other := self._compared_on) is None:
            return self._rows_for_fidelity(calibration, without=without, half=True)
        return self._rows_for_fidelity(self._other(other), without=without)

    def for_judging(self, calibration: Corpus, without: frozenset[str]) -> CalibrationSet:
        """Draw the rows by which it is decided what healing keeps; a line says if there are fewer than there should be.

        Args:
            calibration: The documents of the calibration text.
            without: The hashes of the documents that are calibrated or measured on.

        Returns:
            The rows; none if there is too little text.

        Raises:
            CalibrationError: a document is empty.
        """
        labels = classifies(self.loaded.model)
        text = for_judging(calibration, without, classifies=labels)
        if line := few_judges(len(text.rows), text.source, classifies=labels):
            self.progress.note(line)
        return text

    def for_fidelity_again(self, reserved: ReservedText | None, drawn: CalibrationSet) -> CalibrationSet:
        """Draw the text that the fidelity of an existing checkpoint is measured on: that of the run which made it.

        Args:
            reserved: The text of that run, from the checkpoint's record; None if it is not known.
            drawn: The calibration set, which was drawn without the documents in the record.

        Returns:
            The rows; fewer than asked for, or none, if there is too little text.
        """
        other, unknown = self._compared_on, "its record names no such text"
        if reserved is not None and other in (None, reserved.source):
            try:
                corpus = self._other(reserved.source, reserved.among)
                return self._rows_for_fidelity(corpus, without=drawn.documents, only=frozenset(reserved.documents))
            except (CalibrationError, TaskError) as error:
                unknown = f"the text in its record cannot be read ({error})"
        self.progress.note(
            f"{self.recipe.model} may have been made with the text that its fidelity is measured on: {unknown}"
        )
        corpus = self._other(other or drawn.source)
        return self._rows_for_fidelity(corpus, without=drawn.documents)

    def for_comparison(
        self, known: Mapping[str, ReservedText], *, named: bool
    ) -> tuple[CalibrationSet, frozenset[str]]:
        """Draw the text on which models of any origin are compared with an intact one.

        It is the text that the runs which made the models kept for that, if their records say so.

        Args:
            known: By label of a model, the text in the record of its checkpoint, if there is one.
            named: Whether the user names the text.

        Returns:
            The text, and the labels of the models that have certainly not been made with it.

        Raises:
            CalibrationError: the text cannot be read, or fills no row.
        """
        source = self._compared_on
        if source is None and named:
            source = source_anywhere(str(self.recipe.calibration.source))
        first = next((each.source for each in known.values() if source in (None, each.source)), None)
        kept = {label: each for label, each in known.items() if each.source == first}
        if kept:
            documents = (frozenset(each.documents) for each in kept.values())
            try:
                corpus = self._other(str(first), max(each.among for each in kept.values()))
                text = self._rows_for_fidelity(corpus, only=frozenset.intersection(*documents))
            except (CalibrationError, TaskError) as error:
                if source is not None:
                    raise
                self.progress.note(f"the text in the record of {', '.join(kept)} cannot be read: {error}")
            else:
                if text.rows:
                    return text, frozenset(kept)
        corpus = self._other(source or str(self.recipe.calibration.source))
        text = self._rows_for_fidelity(corpus)
        if not text.rows:
            raise CalibrationError(
                f"{text.source} fills no row of {corpus.form.max_length} tokens; name other text, or shorter rows "
                "(--max-length)"
            )
        return text, frozenset()

    def further(self, without: frozenset[str]) -> FurtherText | None:
        """Return a settled recipe's further text for healing.

        Args:
            without: The hashes of documents to leave out: those of the calibration text, and those that are measured or
                judged on.

        Returns:
            The text; None if the recipe names none.

        Raises:
            CalibrationError: the text does not exist, or nothing is left of it.
            TaskError: the text is a task's training split, and the task has none.
        """
        if self.recipe.heal_text is None:
            return None
        evaluator, spec = self._trained_on(self.recipe.heal_text), self.recipe.calibration
        assert spec.max_length is not None
        assert spec.packing is not None
        further = FurtherText(
            self.recipe.heal_text,
            self.loaded.tokenizer,
            max_length=spec.max_length,
            batch_size=self.recipe.batch_size,
            field=spec.field,
            packing=spec.packing,
            without=without,
            documents=None if evaluator is None else self._training_split(evaluator),
        )
        if next(iter(further), None) is None:
            raise CalibrationError(
                f"the further text {self.recipe.heal_text} fills no row of {spec.max_length} tokens beyond the "
                "documents already drawn; name other text (--heal-text)"
            )
        further.read = Read()  # that look served no training
        return further

    @property
    def _compared_on(self) -> str | None:
        """The text that the comparer names, as records name it; None if it names none."""
        text = comparer_options(self.recipe).text
        return text and source_anywhere(text)

    def _rows_for_fidelity(self, corpus: Corpus, **chosen: Any) -> CalibrationSet:
        """Draw as many rows, of as many tokens, as the comparer's options say; see `for_fidelity`."""
        options, samples = comparer_options(self.recipe), self.recipe.calibration.samples
        rows, tokens = options.size(samples, corpus.form.max_length, classifier=classifies(self.loaded.model))
        corpus = replace(corpus, form=replace(corpus.form, max_length=tokens))
        return for_fidelity(corpus, rows, **chosen)

    def _other(self, source: str, among: int | None = None) -> Corpus:
        """Read the documents of a text, without labels; of a data set the first ones, if it is said how many."""
        return self._corpus(source, Reader(self.recipe.calibration.field), self._trained_on(source), among)

    def _corpus(self, source: str, reader: Reader, trained_on: Evaluator | None, among: int | None = None) -> Corpus:
        spec = self.recipe.calibration
        assert spec.max_length is not None
        assert spec.packing is not None
        form = RowFormat(self.loaded.tokenizer, spec.max_length, self.recipe.batch_size, spec.packing)
        if trained_on is not None:
            return Corpus(self._training_split(trained_on), source, form)
        if among is not None and is_dataset(source):
            return Corpus(list(islice(documents_in(source, reader), among)), source, form)
        return read_corpus(source, reader, form, spec.samples)

    def _trained_on(self, source: str) -> Evaluator | None:
        """Return the evaluator of the task whose training split is a text; None for other texts."""
        task = task_of(source)
        return None if task is None else for_training(self.recipe, task, self.permissions, self.progress)

    def _training_split(self, evaluator: Evaluator) -> Sequence[Document]:
        with attributing("evaluator", evaluator.name, type(evaluator)):
            return evaluator.training_documents(self.loaded.model, self.loaded.tokenizer)


def publishable(fidelity: Fidelity | None, text: CalibrationSet | None) -> Sequence[Sample]:
    """Return continuations of a text, if the text is one that ships: prompts of the user's own are not published."""
    if fidelity is None or fidelity.generation is None or text is None or text.source not in assets().texts:
        return ()
    return fidelity.generation.samples


def reserved(text: CalibrationSet) -> ReservedText | None:
    """Return what the record of a checkpoint says of the text for fidelity; None if there is no such text."""
    if not text.rows:
        return None
    return ReservedText(source=source_anywhere(text.source), documents=tuple(sorted(text.documents)), among=text.among)
