"""Settles what a grid leaves open: its components and models, digests of files, and the tasks' fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerimp.bench.cell_graph import Chooser, Decided, Entrant, Layout, Measure, Mender, Subject, count_at
from layerimp.bench.cells import digest
from layerimp.bench.grid import Grid
from layerimp.calibration.documents import Reader, check_beginning, check_source, documents_in, is_dataset, task_of
from layerimp.calibration.sampling import document_hash
from layerimp.errors import LayerimpError, OptionError
from layerimp.evaluation.comparing import comparer_of
from layerimp.evaluation.selection import (
    comparer_options,
    data_files,
    for_training,
    is_requested,
    prepared,
    prepared_for,
    reads_tasks,
)
from layerimp.evaluator import Evaluator
from layerimp.healer import Healer, Scope
from layerimp.models.configuration import configuration, stored_in
from layerimp.models.dtypes import dtype_named, name_of
from layerimp.models.loading import emulated, float32_stands_in
from layerimp.pipeline.healing import healers_of, note_overlap
from layerimp.pipeline.memory import Memory, most_gaps
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import anywhere, create_pruner, row_length
from layerimp.pipeline.resolve import resolve as resolve_recipe
from layerimp.recipe import PERMISSIONS, ComponentSpec, Permissions, Recipe
from layerimp.registry.assets import located
from layerimp.registry.attribution import attributing, create
from layerimp.registry.catalog import registry
from layerimp.registry.source_code import code_of
from layerimp.scorer import Scorer
from layerimp.scoring.selection import check_spec, expanded, is_blind

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from layerimp.bench.digests import FileDigests
    from layerimp.bench.engine import Engine
    from layerimp.progress import Progress

Evaluators = Mapping[str, Mapping[str, Evaluator]]
"""The evaluators of each model, by the labels of both."""


def resolve(
    grid: Grid,
    digests: FileDigests,
    engine: Engine,
    permissions: Permissions,
    progress: Progress,
    before: Layout | None = None,
) -> tuple[Layout, Evaluators]:
    """Find everything that determines the cells of a grid.

    Args:
        grid: The grid.
        digests: Digests of files.
        engine: Where models compute. The dtype is decided here, once.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        before: What was found for the grid that is in the store, whose decisions by memory stay; None for none.

    Returns:
        The grid with everything that determines its cells, and the evaluators of each model, by the labels of both.

    Raises:
        InputError: something that the grid names does not exist, or does not fit the rest of the grid.
    """
    scorers = _entrants(grid, progress)
    pruners = {label: _chooser(spec) for label, spec in grid.pruners.items()}
    own_pruners = {label: _chooser(spec) for label, spec in grid.own_pruners.items()}
    menders = healers_of(grid.healers, grid.heal_text)
    healers = {label: Mender(spec=grid.healers[label], code=code_of(healer)) for label, healer in menders.items()}
    settling = _Settling(digests, engine, permissions, progress)
    subjects, evaluators = {}, {}
    for label in grid.models:
        recipe = anywhere(resolve_recipe(grid.recipe(label)))
        subject, evaluators[label] = settling.subject(label, recipe, None if before is None else before.identity(label))
        known = {} if before is None else before.decisions(label, subject.identity, healers)
        decided = settling.decided(subject.recipe, menders, grid, known)
        subjects[label] = subject.model_copy(update={"decided": decided})
    return Layout(
        grid=grid, models=subjects, scorers=scorers, pruners=pruners, own_pruners=own_pruners, healers=healers
    ), evaluators


@dataclass(frozen=True)
class _Settling:
    """Settles the models of a grid; see `resolve`."""

    digests: FileDigests
    engine: Engine
    permissions: Permissions
    progress: Progress

    def subject(self, label: str, recipe: Recipe, before: str | None = None) -> tuple[Subject, Mapping[str, Evaluator]]:
        """Return a model with what determines its cells, and its evaluators by label."""
        recipe, dtype = self._with_dtype(recipe, before)
        requested = {name for name in recipe.evaluators if is_requested(recipe, name, Grid)}
        # Made for all tasks together, they refuse two tasks of one name.
        evaluators = prepared(recipe, self.permissions, self.progress)
        measures = self._measures(recipe)
        if not measures:
            raise OptionError(
                f"nothing ranks the models that {label!r} leaves: name tasks (--tasks); fidelity stands beside them"
            )
        spec, further, compared = recipe.calibration, recipe.heal_text, comparer_options(recipe)
        with self.progress.stage(f"read the files of {label}"):
            subject = Subject(
                recipe=recipe,
                identity=self._identity(recipe.model, dtype),
                text=self._text(recipe, str(spec.source), packing=spec.packing, label_field=spec.label_field),
                heal_text=None if further is None else self._heal_text(recipe, further, measures),
                fidelity_text=digest(
                    [compared.rows, compared.brief, compared.text and self._text(recipe, compared.text)]
                ),
                measures=measures,
                data_files=tuple(data_files(evaluators)),
                comparison=self._comparison(recipe, evaluators, requested),
            )
            self._note_overlap(recipe, evaluators)
        return subject, evaluators

    def decided(
        self, recipe: Recipe, healers: Mapping[str, Healer], grid: Grid, before: Mapping[str, Decided]
    ) -> dict[str, Decided]:
        """Return the options that healers decide by the memory: once for all cells, whose keys hold them.

        The memory for a model without removed blocks counts, with the most gaps that there may be. What was decided
        before stays if it was decided for the same device and healing.
        """
        deciding = {label: healer for label, healer in healers.items() if type(healer).decide is not Healer.decide}
        if not deciding:
            return {}
        outline = Outline.of(recipe.model, trust_remote_code=self.permissions.trust_remote_code)
        num_blocks, device = len(outline.stack), self.engine.place.type
        counts = [count_at(amount, num_blocks) for amount in grid.amounts]
        length = row_length(recipe.calibration, outline.stack.model)
        scope = Scope(most_gaps(counts, num_blocks), length)
        stays = {label: each for label, each in before.items() if each.holds(device, scope)}
        on_place = recipe.model_copy(update={"device": str(self.engine.place)})
        memory = Memory.of(outline, on_place, self.permissions)
        undecided = {label: healer for label, healer in deciding.items() if label not in stays}
        decisions = memory.decisions(undecided, outline.stack, scope)
        for label, decision in decisions.items():
            self.progress.note(f"{label}: {decision.words}")
        return stays | {
            label: Decided(options=dict(decision.options), device=device, scope=scope)
            for label, decision in decisions.items()
        }

    def _with_dtype(self, recipe: Recipe, before: str | None) -> tuple[Recipe, str | None]:
        """Return the recipe with the dtype that all cells compute in, and the dtype's name for the keys of cells.

        The name is None if no dtype is asked for and the model computes in its stored dtype. What was decided by the
        memory for the same files stays: by the identity in the store, where no dtype was asked for either.
        """
        dtype_named(recipe.dtype)
        if recipe.dtype is not None:
            return recipe, recipe.dtype
        engine, trusted = self.engine, self.permissions.trust_remote_code
        config = configuration(recipe.model, trust_remote_code=trusted)
        names = {} if before is None else {self._identity(recipe.model, name): name for name in ("float32", None)}
        if before in names and emulated(recipe.model, config, engine.place):
            widened = names[before] == "float32"
        else:
            widened = float32_stands_in(*(recipe.model, config, engine.place, self.progress), trust_remote_code=trusted)
        if widened:
            return recipe.model_copy(update={"dtype": "float32"}), "float32"
        stored = stored_in(located("models", recipe.model), config)
        return recipe.model_copy(update={"dtype": stored and name_of(stored)}), None

    def _identity(self, model: str, dtype: str | None) -> str:
        return digest([self.digests.of_model(model), dtype])

    def _measures(self, recipe: Recipe) -> tuple[Measure, ...]:
        measures = []
        for label, spec in recipe.evaluators.items():
            cls = registry().get("evaluator", spec.name)
            assert issubclass(cls, Evaluator)
            if cls.kind == "cost":
                raise OptionError(
                    f"the evaluator {label!r} measures costs; a grid compares what is left of the quality"
                )
            if cls.kind == "quality":
                tasks = recipe.tasks or () if reads_tasks(spec) else (label,)
                measures += [self._measure(recipe, label, task) for task in tasks]
        return tuple(measures)

    def _comparison(
        self, recipe: Recipe, evaluators: Mapping[str, Evaluator], requested: Collection[str]
    ) -> Measure | None:
        """Return how pruned models are compared with the intact one."""
        if (comparing := comparer_of(evaluators)) is None:
            return None
        measure = self._measure(recipe, comparing[0], comparing[0])
        return measure.model_copy(update={"optional": comparing[0] not in requested})

    def _measure(self, recipe: Recipe, label: str, task: str) -> Measure:
        evaluator = prepared_for(label, task, recipe, self.permissions, self.progress)
        with attributing("evaluator", label, type(evaluator)):
            # Of the settings of the run, only those that are among its options can change the metrics.
            options = evaluator.config.model_dump(mode="json", exclude={"tasks", "batch_size", *PERMISSIONS})
            tag = evaluator.fingerprint() or digest([evaluator.name, code_of(type(evaluator)), task, options])
        return Measure(evaluator=label, task=task, tag=tag)

    def _text(self, recipe: Recipe, source: str, **form: Any) -> str:
        """Return a digest of a text file's content or of a task's training split, or the name of a text on the hub."""
        if (task := task_of(source)) is not None:
            evaluator = for_training(recipe, task, self.permissions, self.progress)
            with attributing("evaluator", evaluator.name, type(evaluator)):
                return digest([source, evaluator.fingerprint()])
        check_source(source, again=True, **form)
        check_beginning(source, Reader(recipe.calibration.field))
        return self.digests.of_text(source)

    def _note_overlap(self, recipe: Recipe, evaluators: Mapping[str, Evaluator]) -> None:
        """Note documents that the file of the calibration text shares with the tasks: some draw may read them."""
        source, reader = str(recipe.calibration.source), Reader(recipe.calibration.field)
        if task_of(source) is None and not is_dataset(source):
            documents = {document_hash(text) for text, _ in documents_in(source, reader)}
            note_overlap(recipe, evaluators, source, documents, self.progress)

    def _heal_text(self, recipe: Recipe, source: str, measures: Sequence[Measure]) -> str:
        """Return a digest of further text for healing, and of the tasks whose documents a data set is read without."""
        text = self._text(recipe, source)
        if recipe.allow_overlap or task_of(source) is not None or not is_dataset(source):
            return text
        return digest([text, sorted(measure.tag for measure in measures)])


def _entrants(grid: Grid, progress: Progress) -> dict[str, Entrant]:
    specs = expanded(grid.scorers, progress)
    specs |= {label: spec for label, spec in grid.baselines.items() if label not in specs}
    return {label: _entrant(label, spec) for label, spec in specs.items()}


def _entrant(label: str, spec: ComponentSpec) -> Entrant:
    if "seed" in spec.options:
        raise OptionError(f"the scorer {label!r} gets its seed from the repeat; give the grid a seed instead")
    check_spec(label, spec)
    cls = registry().get("scorer", spec.name)
    assert issubclass(cls, Scorer)
    blind, seeded = is_blind(spec.name), "seed" in cls.Config.model_fields
    sample = _for_one_block(spec)
    code = code_of(cls if sample is None else sample)
    return Entrant(spec=spec, blind=blind, seeded=seeded, code=code)


def _for_one_block(spec: ComponentSpec) -> Scorer | None:
    """Make a scorer of a single block, to look at; None if it cannot be made for a single one."""
    try:
        scorer = create("scorer", spec.name, spec.options, 1)
    except LayerimpError:
        return None
    assert isinstance(scorer, Scorer)
    return scorer


def _chooser(spec: ComponentSpec) -> Chooser:
    pruner = create_pruner(spec)
    return Chooser(spec=spec, nested=pruner.nested, code=code_of(pruner))
