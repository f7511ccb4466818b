"""The texts that a recipe names, read for the loaded model. `layerimp.calibration.splits` says which serves what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerimp.calibration.documents import Reader, check_source, task_of
from layerimp.calibration.further_text import FurtherText
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import CalibrationSet, Corpus, read_corpus
from layerimp.calibration.splits import for_fidelity
from layerimp.checkpoint.record import ReservedText
from layerimp.errors import CalibrationError, OptionError, TaskError
from layerimp.evaluation.selection import comparer_options, for_training
from layerimp.pipeline.resolve import source_anywhere
from layerimp.registry.attribution import attributing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layerimp.evaluator import Document, Evaluator
    from layerimp.pipeline.stages import Loaded
    from layerimp.progress import Progress
    from layerimp.recipe import Permissions, Recipe


def check_calibration(recipe: Recipe, permissions: Permissions, progress: Progress) -> Evaluator | None:
    """Check, before a model is loaded, that the calibration text and the further text exist.

    Returns:
        The evaluator of the task whose training split is the text; None for other texts.

    Raises:
        InputError: the text or the task does not exist, or contradicts another option.
    """
    spec = recipe.calibration
    if (other := comparer_options(recipe).text) is not None and task_of(other) is None:
        check_source(other, packing=spec.packing)
    if recipe.heal_text is not None:
        if (further := task_of(recipe.heal_text)) is None:
            check_source(recipe.heal_text, again=True)
        else:
            for_training(recipe, further, permissions, progress)
    if (task := task_of(str(spec.source))) is None:
        check_source(str(spec.source), packing=spec.packing, label_field=spec.label_field)
        return None
    if spec.label_field or ("field" in spec.model_fields_set and spec.field != "text"):
        raise OptionError(f"{spec.source} says itself where its text and its labels are; leave the fields out")
    return for_training(recipe, task, permissions, progress)


def read_text(recipe: Recipe, loaded: Loaded, trained_on: Evaluator | None, progress: Progress) -> Corpus:
    """Read the documents of the calibration text.

    Args:
        recipe: The recipe, settled.
        loaded: The model that reads the text.
        trained_on: The evaluator of the task whose training split is the text; None for other texts.
        progress: Where to report progress.

    Raises:
        CalibrationError: the text cannot be read.
    """
    with progress.stage(f"read {recipe.calibration.source}"):
        label2id = {name: int(number) for name, number in (loaded.model.config.label2id or {}).items()}
        reader = Reader(recipe.calibration.field, recipe.calibration.label_field, label2id)
        return _corpus(recipe, loaded, str(recipe.calibration.source), reader, trained_on)


def text_for_fidelity(
    recipe: Recipe,
    loaded: Loaded,
    calibration: Corpus,
    without: frozenset[str],
    permissions: Permissions,
    progress: Progress,
) -> CalibrationSet:
    """Draw the text that fidelity is measured on, from documents that no draw of calibration text reads.

    Args:
        recipe: The recipe, settled. The evaluator of fidelity may name another text, and the number of rows.
        loaded: The model that reads the text.
        calibration: The documents of the calibration text.
        without: The hashes of the documents that all draws of calibration text read.
        permissions: Which code that came with data may run.
        progress: Where to report progress.

    Returns:
        The rows; fewer than asked for, or none, if there is too little text.

    Raises:
        CalibrationError: a text cannot be read.
    """
    options = comparer_options(recipe)
    if options.text is None:
        return for_fidelity(calibration, options.rows, without=without, half=True)
    return for_fidelity(_other(recipe, loaded, options.text, permissions, progress), options.rows, without=without)


def text_for_fidelity_again(
    recipe: Recipe,
    loaded: Loaded,
    reserved: ReservedText | None,
    drawn: CalibrationSet,
    permissions: Permissions,
    progress: Progress,
) -> CalibrationSet:
    """Draw the text that the fidelity of an existing checkpoint is measured on: that of the run which made it.

    Args:
        recipe: A settled recipe with the checkpoint as its model.
        loaded: The model that reads the text.
        reserved: The text of that run, from the checkpoint's record; None if it is not known.
        drawn: The calibration set, which was drawn without the documents in the record.
        permissions: Which code that came with data may run.
        progress: Where to report progress, and that text may have been read before.

    Returns:
        The rows; fewer than asked for, or none, if there is too little text.
    """
    options = comparer_options(recipe)
    other, rows = options.text, options.rows
    unknown = "its record names no such text"
    if reserved is not None and other in (None, reserved.source):
        try:
            corpus = _other(recipe, loaded, reserved.source, permissions, progress)
            return for_fidelity(corpus, rows, without=drawn.documents, only=frozenset(reserved.documents))
        except (CalibrationError, TaskError) as error:
            unknown = f"the text in its record cannot be read ({error})"
    progress.note(f"{recipe.model} may have been made with the text that its fidelity is measured on: {unknown}")
    corpus = _other(recipe, loaded, other or drawn.source, permissions, progress)
    return for_fidelity(corpus, rows, without=drawn.documents)


def text_for_comparison(
    recipe: Recipe,
    loaded: Loaded,
    known: Mapping[str, ReservedText],
    *,
    named: bool,
    permissions: Permissions,
    progress: Progress,
) -> tuple[CalibrationSet, frozenset[str]]:
    """Draw the text on which models of any origin are compared with an intact one.

    It is the text that the runs which made the models kept for that, if their records say so.

    Args:
        recipe: A settled recipe of the intact model. Its calibration text is the text, if the user names one.
        loaded: The intact model.
        known: By label of a model, the text in the record of its checkpoint, if there is one.
        named: Whether the user names the text.
        permissions: Which code that came with data may run.
        progress: Where to report progress.

    Returns:
        The text, and the labels of the models that have certainly not been made with it.

    Raises:
        CalibrationError: the text cannot be read, or fills no row.
    """
    options = comparer_options(recipe)
    source, rows = options.text, options.rows
    if source is None and named:
        source = source_anywhere(str(recipe.calibration.source))
    first = next((each.source for each in known.values() if source in (None, each.source)), None)
    kept = {label: frozenset(each.documents) for label, each in known.items() if each.source == first}
    if kept:
        try:
            corpus = _other(recipe, loaded, str(first), permissions, progress)
            text = for_fidelity(corpus, rows, only=frozenset.intersection(*kept.values()))
        except (CalibrationError, TaskError) as error:
            if source is not None:
                raise
            progress.note(f"the text in the record of {', '.join(kept)} cannot be read: {error}")
        else:
            if text.rows:
                return text, frozenset(kept)
    corpus = _other(recipe, loaded, source or str(recipe.calibration.source), permissions, progress)
    text = for_fidelity(corpus, rows)
    if not text.rows:
        raise CalibrationError(
            f"{text.source} fills no row of {corpus.form.max_length} tokens; name other text, or shorter rows "
            "(--max-length)"
        )
    return text, frozenset()


def reserved(text: CalibrationSet) -> ReservedText | None:
    """Return what the record of a checkpoint says of the text for fidelity; None if there is no such text."""
    if not text.rows:
        return None
    return ReservedText(source=source_anywhere(text.source), documents=tuple(sorted(text.documents)))


def further_text(
    recipe: Recipe, loaded: Loaded, without: frozenset[str], permissions: Permissions, progress: Progress
) -> FurtherText | None:
    """Return a settled recipe's further text for healing.

    Args:
        recipe: The recipe.
        loaded: The model that reads the text.
        without: The hashes of documents to leave out: those of the calibration text and of the text for fidelity.
        permissions: Which code that came with data may run.
        progress: Where to report progress.

    Returns:
        The text; None if the recipe names none.

    Raises:
        CalibrationError: the text does not exist, or nothing is left of it.
        TaskError: the text is a task's training split, and the task has none.
    """
    if recipe.heal_text is None:
        return None
    task, spec = task_of(recipe.heal_text), recipe.calibration
    assert spec.max_length is not None
    assert spec.packing is not None
    evaluator = None if task is None else for_training(recipe, task, permissions, progress)
    further = FurtherText(
        recipe.heal_text,
        loaded.tokenizer,
        max_length=spec.max_length,
        batch_size=recipe.batch_size,
        field=spec.field,
        packing=spec.packing,
        without=without,
        documents=None if evaluator is None else training_documents(evaluator, loaded),
    )
    if next(iter(further), None) is None:
        raise CalibrationError(
            f"the further text {recipe.heal_text} fills no row of {spec.max_length} tokens beside the documents "
            "that were drawn for calibration and for fidelity; name other text (--heal-text)"
        )
    return further


def _other(recipe: Recipe, loaded: Loaded, source: str, permissions: Permissions, progress: Progress) -> Corpus:
    """Read the documents of a text, without labels."""
    task = task_of(source)
    trained_on = None if task is None else for_training(recipe, task, permissions, progress)
    return _corpus(recipe, loaded, source, Reader(recipe.calibration.field), trained_on)


def _corpus(recipe: Recipe, loaded: Loaded, source: str, reader: Reader, trained_on: Evaluator | None) -> Corpus:
    spec = recipe.calibration
    assert spec.max_length is not None
    assert spec.packing is not None
    form = RowFormat(loaded.tokenizer, spec.max_length, recipe.batch_size, spec.packing)
    if trained_on is not None:
        return Corpus(training_documents(trained_on, loaded), source, form)
    return read_corpus(source, reader, form, spec.samples)


def training_documents(evaluator: Evaluator, loaded: Loaded) -> Sequence[Document]:
    """Return the training split of an evaluator's task.

    Raises:
        TaskError: the task has none.
    """
    with attributing("evaluator", evaluator.name, type(evaluator)):
        return evaluator.training_documents(loaded.model, loaded.tokenizer)
