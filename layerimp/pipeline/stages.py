"""A recipe at work: the stages of a run, and the report that grows."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.blocks.stack import BlockStack
from layerimp.calibration.documents import TASK, Reader, check_source, read_documents, task_of
from layerimp.calibration.sampling import CalibrationSet, draw_calibration
from layerimp.checkpoint.saving import check_memory, write
from layerimp.checkpoint.staging import check_target, staged
from layerimp.defaults import ALL, LENGTH, ORIGINAL, RATIO
from layerimp.errors import OptionError, OutputError
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluation.selection import Panel
from layerimp.evaluator import Document, Evaluator, Metric
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import name_of
from layerimp.models.loading import auto_class, load
from layerimp.models.traits import classifies, longest_row
from layerimp.progress import Progress
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.recipe import Permissions, Recipe, check_label
from layerimp.registry.assets import absolute, assets, located
from layerimp.registry.attribution import blaming
from layerimp.registry.catalog import registry
from layerimp.report.data import Report, Size, why_not_ours
from layerimp.report.model_card import model_card
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import fill, finished, measure
from layerimp.scoring.selection import Lineup
from layerimp.surgery.removal import pruned
from layerimp.sweep.cache import BlockCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Job:
    """A recipe at work: what is loaded, and the report that grows."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stack: BlockStack
    report: Report

    def __init__(self, recipe: Recipe, permissions: Permissions, progress: Progress, reads: Sequence[str] = ()) -> None:
        """Set up the job.

        Args:
            recipe: What is asked for; what it leaves open is settled here, and said in one line.
            permissions: What may run code.
            progress: Where to report progress.
            reads: Which of the recipe's `calibration` and `tasks` this job needs.
        """
        self.asked, self.recipe = recipe, recipe.settled()
        self.permissions, self.progress = permissions, progress
        self.panel = Panel(self.recipe, permissions, progress, lenient=recipe.tasks is None)
        if by_default := self._defaults(reads):
            progress.note(by_default)
        self.lineup = Lineup.of(self.recipe, progress)
        registry().options("pruner", recipe.pruner.name, recipe.pruner.options)
        self._trained_on: Evaluator | None = None

    def _defaults(self, reads: Sequence[str]) -> str:
        """What was not named and is used nevertheless, and how to name it; empty where all is named."""
        asked, recipe = self.asked, self.recipe
        used: dict[str, str] = {}
        if "model" not in asked.model_fields_set:
            used["--model DIR"] = f"model {recipe.model}"
        if "calibration" in reads and asked.calibration.source is None:
            used["--calibration FILE"] = f"calibration text {recipe.calibration.source}"
        if "tasks" in reads and asked.tasks is None and recipe.tasks and self.panel.reads_tasks:
            used["--tasks NAMES"] = f"tasks {', '.join(recipe.tasks)}"
        return f"by default: {'; '.join(used.values())} (your own: {' '.join(used)})" if used else ""

    def open(self) -> None:
        """Load the model and find its blocks."""
        recipe = self.recipe
        with self.progress.stage(f"load {recipe.model}"):
            loaded = load(
                recipe.model,
                dtype=recipe.dtype,
                device=recipe.device,
                device_map=recipe.device_map,
                trust_remote_code=self.permissions.trust_remote_code,
                progress=self.progress,
            )
        self.adopt(*loaded)

    def adopt(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take a model that is loaded, and find its blocks."""
        recipe = self.recipe
        self.model, self.tokenizer = model, tokenizer
        self.stack = find_blocks(self.model)
        loader = auto_class(self.model.config)
        self.report = Report(recipe, len(self.stack), loader, sizes={ORIGINAL: Size.of(self.stack)})
        self.report.baselines, self.report.left_out = self.lineup.baselines, self.lineup.left_out
        self.report.failed = self.lineup.failed
        self._evaluation = Evaluation(self.model, self.tokenizer, self.progress, self.report.failed)
        paths = {"task_path": recipe.task_path, "data_dir": recipe.data_dir}
        self.report.resolved = {name: absolute(path) for name, path in paths.items() if path is not None}
        self.report.resolved["model"] = absolute(recipe.model, assets().models)
        self.report.resolved["dtype"] = name_of(model.dtype)
        tasks = recipe.tasks or ()
        self.report.resolved["tasks"] = [absolute(task) if task.endswith(".yaml") else task for task in tasks]

    @contextmanager
    def staged_output(self) -> Iterator[Path | None]:
        """The output directory in the making, or None where none is asked for."""
        output = self.recipe.output
        if output is None:
            yield None
            return
        target = output.expanduser().absolute()
        _refuse_precious(target, self.recipe.model)
        why_not = why_not_ours if self.recipe.overwrite else None
        check_target(target, why_not=why_not)
        with staged(target, why_not=why_not) as stage:
            yield stage
        self.report.output = target
        for label, path in self.report.checkpoints.items():
            self.report.checkpoints[label] = target / path

    def need_calibration(self) -> None:
        """Stop, before a model is loaded, if the calibration text is not there."""
        spec = self.recipe.calibration
        if (task := task_of(str(spec.source))) is None:
            check_source(str(spec.source), packing=spec.packing, label_field=spec.label_field)
            return
        if spec.label_field or ("field" in self.asked.calibration.model_fields_set and spec.field != "text"):
            raise OptionError(f"{spec.source} says itself where its text and its labels are; leave the fields out")
        self._trained_on = self.panel.for_training(task)

    def calibration(self) -> CalibrationSet:
        """Draw the calibration set."""
        spec = self.recipe.calibration
        longest = longest_row(self.model) or math.inf
        length = int(spec.max_length or min(LENGTH, longest))
        if length > longest:
            raise OptionError(f"max_length {length} is beyond the model's {longest} positions")
        if spec.label_field and not classifies(self.model):
            kind = type(self.model).__name__
            raise OptionError(f"labels ({spec.label_field!r}) are for classifiers; {kind} is none")
        rows = self._trained_on is not None and classifies(self.model)
        packing = spec.packing or ("rows" if rows else "windows")
        with self.progress.stage(f"read {spec.source}"):
            drawn = draw_calibration(
                self._documents(length),
                self.tokenizer,
                source=str(spec.source),
                samples=spec.samples,
                max_length=length,
                batch_size=self.recipe.batch_size,
                seed=self.recipe.seed,
                packing=packing,
            )
        self.report.calibration = drawn.description
        source = str(spec.source)
        if (task := task_of(source)) is not None and task.endswith(".yaml"):
            source = f"{TASK}{absolute(task)}"
        self.report.resolved["calibration"] = spec.model_dump() | {
            "max_length": length,
            "packing": packing,
            "source": absolute(source, assets().texts),
        }
        return drawn

    def _documents(self, length: int) -> Sequence[Document]:
        """The text that rows of so many tokens are drawn from."""
        spec = self.recipe.calibration
        if self._trained_on is not None:
            return self._trained_on.training_documents(self.model, self.tokenizer)
        label2id = {name: int(number) for name, number in (self.model.config.label2id or {}).items()}
        reader = Reader(spec.field, spec.label_field, label2id)
        return read_documents(str(spec.source), reader, rows=spec.samples, characters=40 * spec.samples * length)

    def importance(self) -> CalibrationSet:
        """Score the blocks by every scorer, in shared sweeps; returns the calibration set for further scoring."""
        drawn = self.calibration()
        self.lineup.try_out(self.stack, next(iter(drawn)))
        if ALL in self.recipe.scorers:
            asked = {label: spec for label, spec in self.lineup.specs.items() if label not in self.lineup.baselines}
            self.report.resolved["scorers"] = {label: spec.model_dump() for label, spec in asked.items()}
        scorers: dict[str, Scorer] = {}
        for label in list(self.lineup.specs):
            with self.lineup.excusing(label):
                scorers |= self.lineup.made(len(self.stack), label)
        for label, filled in fill(self.stack, drawn, scorers, progress=self.progress).items():
            with self.lineup.excusing(label):
                self.report.importance[label] = finished(label, [filled])
        self.lineup.need_any()
        return drawn

    def plans(self) -> dict[str, PrunePlan]:
        """Score, and let the pruner choose blocks by each scorer."""
        recipe = self.recipe
        ratio = recipe.ratio
        if ratio is None and not recipe.blocks:
            ratio = self.report.resolved["ratio"] = RATIO
        budget = Budget.of(len(self.stack), ratio=ratio, blocks=recipe.blocks, protect=recipe.protect)
        drawn = self.importance()
        spec = recipe.pruner
        pruner = registry().get("pruner", spec.name)(registry().options("pruner", spec.name, spec.options))
        assert isinstance(pruner, Pruner)
        plans = {}
        for label in list(self.lineup.specs):
            with self.lineup.excusing(label):
                plans[label] = self._plan(label, pruner, budget, drawn)
        return plans

    def _plan(self, label: str, pruner: Pruner, budget: Budget, drawn: CalibrationSet) -> PrunePlan:
        cache = BlockCache(self.stack)

        def scoring(removed: Sequence[int]) -> Importance:
            if not removed:
                return self.report.importance[label]
            scorers = self.lineup.made(len(self.stack) - len(set(removed)), label)
            found = measure(self.stack, drawn, scorers, removed=removed, progress=self.progress, cache=cache)
            return found[label]

        with blaming("pruner", pruner.name, type(pruner), f"on the scores of {label}"):
            plan = pruner.within_budget(scoring, budget)
        return plan.model_copy(update={"scorer": self.lineup.specs[label].name, "pruner": pruner.name})

    def accept(self, plans: dict[str, PrunePlan], stage: Path | None) -> None:
        """Put the plans on record; an error, before any long work, if one of them cannot be carried out."""
        for label, plan in plans.items():
            check_label(label)
            if not plan.blocks:
                raise OptionError(f"plan {label!r} removes nothing")
            if plan.num_blocks != len(self.stack):
                raise OptionError(f"plan {label!r} is for {plan.num_blocks} blocks; the model has {len(self.stack)}")
            with self.lineup.excusing(label), pruned(self.model, plan.blocks):
                self.report.plans[label] = plan
                self.report.sizes[label] = Size.of(self.stack)
        self.lineup.need_any()
        for label in self.lineup.left_out | self.lineup.failed:
            self.report.importance.pop(label, None)
        if stage:
            saved = self.report.plans.keys() - set(self.report.baselines)
            need, free = sum(self.report.sizes[label].bytes for label in saved), shutil.disk_usage(stage).free
            if need > free:
                raise OutputError(f"the checkpoints need {need:,} bytes, and {stage.parent} has {free:,} left")
            if self.recipe.verify:
                check_memory(self.model)

    def evaluate(self, evaluators: dict[str, Evaluator], kind: str, who: str = ORIGINAL) -> list[Metric]:
        """What the evaluators of a kind say of the model as it is, `who` it is; see `Evaluation.of`."""
        return self._evaluation.of(evaluators, kind, who)

    def evaluate_pruned(self, label: str, evaluators: dict[str, Evaluator]) -> list[Metric]:
        """The quality of the model as it is, pruned by the plan under `label`; the same blocks are measured once."""
        plans, metrics = self.report.plans, self.report.metrics
        for other in plans:
            if metrics.get(other) and set(plans[other].blocks) == set(plans[label].blocks):
                self.progress.note(f"{label} removes the same blocks as {other}, whose metrics stand for both")
                return metrics[other]
        return self.evaluate(evaluators, "quality", label)

    def evaluate_costs(self, evaluators: dict[str, Evaluator]) -> None:
        """Time and space of all models, one right after the other, so that the machine's load is much the same."""
        costs = self.report.footprint
        costs[ORIGINAL] = self.evaluate(evaluators, "cost")
        for label, plan in self.report.plans.items():
            with pruned(self.model, plan.blocks):
                costs[label] = self.evaluate(evaluators, "cost", label)

    def write_checkpoint(self, label: str, stage: Path) -> None:
        """Write the model as it is now, with a card, under the label."""
        relative = Path("checkpoints") / label
        self.report.checkpoints[label] = relative
        with self.progress.stage(f"save {relative}"):
            (stage / relative).mkdir(parents=True)
            card = model_card(self.report, label)
            write(
                self.model,
                self.tokenizer,
                stage / relative,
                verify=self.recipe.verify,
                card=card,
                max_shard_size=self.recipe.max_shard_size,
            )


def _refuse_precious(target: Path, model: str) -> None:
    """Never write into the model's own directory, one of its parents, or a home."""
    source = Path(located("models", model)).expanduser()
    resolved = target.resolve()
    if source.exists() and (source.resolve() == resolved or resolved in source.resolve().parents):
        raise OutputError(f"the output {target} is the model's own directory or holds it; name another")
    if resolved == Path.home().resolve() or resolved in Path.home().resolve().parents:
        raise OutputError(f"the output {target} is a home directory or holds one; name another")
