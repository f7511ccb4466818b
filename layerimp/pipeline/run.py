"""A run: what its stages read, and what they return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.calibration.further_text import Read
from layerimp.defaults import ORIGINAL
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluation.selection import fitting, with_text
from layerimp.healing.engine import heal_beside
from layerimp.models.configuration import auto_class
from layerimp.models.discovery import find_blocks
from layerimp.models.origin import model_name
from layerimp.models.sizing import shapes_only
from layerimp.pipeline.file_pruning import refuse_own_code
from layerimp.pipeline.healing import check_text, leave_out_measured, note_overlap
from layerimp.pipeline.held_out import with_quality
from layerimp.pipeline.resolve import settled
from layerimp.pipeline.stages import Loaded, load_model, tell_unmeasured
from layerimp.pipeline.texts import Texts, check_data_sets
from layerimp.report.results.models import Size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.cache.unfinished import Unfinished
    from layerimp.calibration.further_text import FurtherText
    from layerimp.calibration.sampling import CalibrationSet
    from layerimp.evaluator import Evaluator
    from layerimp.fidelity.record import Fidelity
    from layerimp.healer import Healer
    from layerimp.healing.engine import Healed
    from layerimp.metric import Metric
    from layerimp.pipeline.prepare import Command, Prepared
    from layerimp.progress import Progress
    from layerimp.pruner import PrunePlan, Pruner
    from layerimp.recipe import Recipe
    from layerimp.report.results.contenders import Contender
    from layerimp.report.results.models import Repaired
    from layerimp.report.results.search import QualitySearch
    from layerimp.scorer import Importance
    from layerimp.scoring.selection import Selection
    from layerimp.sizes.targets import Reached
    from layerimp.surgery.removal import Removal


@dataclass(frozen=True)
class Run:
    """A command that has loaded its model and drawn its text. Stages read it, and return what they find out.

    Attributes:
        command: The command.
        resolved: The recipe in the user's words, with the text and the tasks that are used by default.
        recipe: The recipe, settled: see `layerimp.pipeline.resolve.settled`.
        progress: Where to report progress.
        loaded: The intact model, its tokenizer and its blocks.
        size: The size of the intact model.
        drawn: The text for scorers and healers; None if the command reads none.
        reserved: The text that fidelity is measured on, which has no row if there is too little text; None if the
            command reads none.
        selection: The scorers; those that fail leave it.
        pruner: The pruner.
        evaluators: The evaluators that can measure the model, by label.
        evaluation: Runs evaluators on the intact model; knows which have failed.
        healers: The healers, by label.
        judging: The rows by which it is decided what healing keeps; None without healers.
        further: Further text that healers may train on, if any.
        unfinished: The directories in which healers keep the state of long work.
        stage: The directory to write to; None if no output was asked for.
    """

    command: Command
    resolved: Recipe
    recipe: Recipe
    progress: Progress
    loaded: Loaded
    size: Size
    drawn: CalibrationSet | None
    reserved: CalibrationSet | None
    selection: Selection
    pruner: Pruner
    evaluators: Mapping[str, Evaluator]
    evaluation: Evaluation
    healers: Mapping[str, Healer]
    judging: CalibrationSet | None
    further: FurtherText | None
    unfinished: Unfinished | None
    stage: Path | None

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        stage: Path | None,
        unfinished: Unfinished | None = None,
        loaded: Loaded | None = None,
    ) -> Run:
        """Load the model of a prepared command, draw its text, and settle the rest of its recipe.

        Args:
            prepared: The command.
            stage: The directory to write to; None if no output was asked for.
            unfinished: The directories in which healers keep the state of long work.
            loaded: The model, if it is loaded already.

        Raises:
            ModelError: the model cannot be loaded or understood.
            CalibrationError: the text cannot be read, or is too short.
            OptionError: an option does not fit the model, such as labels for a language model.
            SurgeryError: the model would be pruned in files, and comes with code of its own.
        """
        resolved, progress, allowed = prepared.recipe, prepared.progress, prepared.permissions
        drawn = reserved = judging = further = None
        if loaded is None and "calibration" in prepared.reads:
            check_data_sets(resolved)
        loaded = loaded or load_model(resolved, allowed, progress, offloaded=prepared.offloaded)
        if prepared.offloaded and prepared.command != "score":
            refuse_own_code(loaded.model)
        recipe = settled(resolved, loaded.model, prepared.reads)
        evaluators, failed = fitting(recipe, prepared.evaluators, loaded.model, progress, lenient=prepared.lenient)
        if "calibration" in prepared.reads:
            texts = Texts(recipe, loaded, allowed, progress)
            corpus = texts.calibration(prepared.trained_on)
            drawn = corpus.draw(recipe.calibration.samples, recipe.seed)
            if "amount" in prepared.reads:
                reserved = texts.for_fidelity(corpus, drawn.documents)
                evaluators = with_text(recipe, evaluators, reserved, progress)
            if prepared.command in ("run", "shrink") and recipe.keep is not None:
                drawn, evaluators = with_quality(recipe, loaded.stack, drawn, evaluators, progress)
            if prepared.healers:
                taken = drawn.documents | (reserved.documents if reserved else frozenset())
                judging = texts.for_judging(corpus, taken)
                further = texts.further(taken | judging.documents)
                check_text(recipe, evaluators, drawn, judging, further)
                leave_out_measured(recipe, evaluators, further)
            else:
                note_overlap(recipe, evaluators, drawn.source, drawn.documents, progress)
        tell_unmeasured(recipe, loaded, progress)
        name = model_name(resolved.model) if prepared.command == "evaluate" else ORIGINAL
        measured = shapes_only(loaded.model) if loaded.stack.offloaded else loaded.model
        evaluation = Evaluation(measured, loaded.tokenizer, progress, failed=failed, intact_name=name)
        return cls(
            command=prepared.command,
            resolved=resolved,
            recipe=recipe,
            progress=progress,
            loaded=loaded,
            size=Size.of(loaded.stack),
            drawn=drawn,
            reserved=reserved,
            selection=prepared.selection,
            pruner=prepared.pruner,
            evaluators=evaluators,
            evaluation=evaluation,
            healers=prepared.healers,
            judging=judging,
            further=further,
            unfinished=unfinished,
            stage=stage,
        )

    @property
    def text(self) -> CalibrationSet:
        """The text for scorers and healers, of a command that reads one."""
        assert self.drawn is not None
        return self.drawn

    def heal(self, healer: str, removal: Removal, pruned: PreTrainedModel | None = None) -> Healed:
        """Repair the pruned model of a removal, beside the intact model, by the healer with a label.

        Without the pruned model, a new one is made.
        """
        if self.further is not None:
            self.further.read = Read()  # what only this healing reads
        return heal_beside(
            self.loaded.stack,
            find_blocks(pruned or removal.beside()),
            removal.removed,
            self.text,
            self.healers[healer],
            further=self.further,
            judging=self.judging,
            unfinished=self.unfinished,
            progress=self.progress,
        )

    @property
    def loader(self) -> str:
        """The stock `Auto` class that loads the checkpoints."""
        return auto_class(self.loaded.model.config)


@dataclass(frozen=True)
class CutModel:
    """A pruned model of a run.

    Attributes:
        contender: Whose plan pruned the model, and what healed it, if anything.
        plan: What was removed.
        size: The model's size.
        removal: The removal.
        beside: The model, if it exists beside the intact one: healed, or without weights; None if it comes into being
            by applying the removal.
        healing: What a healer did; None without a healer.
        reached: The values that the plan reaches beside the targets; empty without targets.
        metrics: Its metrics of kind `quality`.
        footprint: Its metrics of kind `cost`.
        fidelity: How far it is from the intact model; None if that was not measured.
        checkpoint: The place of its checkpoint in the output directory; None if there is none.
    """

    contender: Contender
    plan: PrunePlan
    size: Size
    removal: Removal
    beside: PreTrainedModel | None = None
    healing: Repaired | None = None
    reached: Sequence[Reached] = ()
    metrics: Sequence[Metric] = ()
    footprint: Sequence[Metric] = ()
    fidelity: Fidelity | None = None
    checkpoint: Path | None = None

    @property
    def key(self) -> tuple[frozenset[int], str]:
        """The removed blocks, and the label of the healer, if any: models with the same key are equal."""
        return frozenset(self.plan.blocks), self.contender.healer

    @property
    def standing(self) -> list[Reached]:
        """The values beside the targets, of which parameters and bytes are counted on the model itself."""
        real = {"parameters": self.size.parameters, "bytes": self.size.bytes}
        return [replace(value, value=real.get(value.target.quantity, value.value)) for value in self.reached]

    @contextmanager
    def in_place(self) -> Iterator[PreTrainedModel]:
        """Yield the model; as long as it is no model beside the intact one, the intact model lacks the blocks."""
        if self.beside is not None:
            yield self.beside
        else:
            with self.removal.applied() as model:
                yield model


@dataclass(frozen=True)
class StageResults:
    """What the stages of a run return. What a command does not find out stays empty.

    Attributes:
        importance: The importance, by the scorer's label.
        models: The pruned models, by label: that of the scorer, or `SCORER+HEALER`.
        metrics: The intact model's metrics of kind `quality`.
        footprint: The intact model's metrics of kind `cost`.
        search: The result of a search for the most blocks that may be removed; None if there was none.
        failed: By label, why a healed model could not be made.
    """

    importance: Mapping[str, Importance] = field(default_factory=dict)
    models: Mapping[str, CutModel] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    footprint: Sequence[Metric] = ()
    search: QualitySearch | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
