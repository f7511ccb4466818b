"""A recipe at work: the stages of a run, and the report that grows."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.blocks import BlockStack, find_blocks
from layerimp.calibration import CalibrationSet, check_source, load_calibration
from layerimp.checkpoint import check_memory, write
from layerimp.engine import measure
from layerimp.errors import NonFiniteError, OptionError, OutputError, PluginError
from layerimp.evaluator import Evaluator, Metric
from layerimp.metrics_cache import MetricsCache, model_fingerprint
from layerimp.model import auto_class, load, longest_row
from layerimp.model_card import model_card
from layerimp.progress import Progress
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.recipe import ORIGINAL, PERMISSIONS, CalibrationSpec, Permissions, Recipe, check_label
from layerimp.registry import registry
from layerimp.report import Report, Size, why_not_ours
from layerimp.scorer import Importance, Scorer
from layerimp.staging import check_target, staged
from layerimp.surgery import pruned

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_RATIO = 0.25
DEFAULT_LENGTH = 256


class Job:
    """A recipe at work: what is loaded, and the report that grows."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stack: BlockStack
    report: Report

    def __init__(self, recipe: Recipe, permissions: Permissions, progress: Progress) -> None:
        self.recipe, self.permissions, self.progress = recipe, permissions, progress
        for label, spec in recipe.scorers.items():
            registry().options("scorer", spec.name, spec.options)
            if recipe.scorers[label].name != label and label in registry().names("scorer"):
                raise OptionError(f"the label {label!r} is the name of another scorer than {spec.name!r}")
        registry().options("pruner", recipe.pruner.name, recipe.pruner.options)

    def open(self) -> None:
        """Load the model and find its blocks."""
        recipe = self.recipe
        with self.progress.stage(f"load {recipe.model}"):
            self.model, self.tokenizer = load(
                recipe.model,
                dtype=recipe.dtype,
                device=recipe.device,
                trust_remote_code=self.permissions.trust_remote_code,
            )
        self.stack = find_blocks(self.model)
        loader = auto_class(self.model.config)
        self.report = Report(recipe, len(self.stack), loader, sizes={ORIGINAL: Size.of(self.stack)})
        paths = {"model": recipe.model, "task_path": recipe.task_path, "data_dir": recipe.data_dir}
        self.report.resolved = {name: _absolute(path) for name, path in paths.items() if path is not None}
        self.report.resolved["tasks"] = [_absolute(task) if task.endswith(".yaml") else task for task in recipe.tasks]

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

    def evaluators(self) -> dict[str, Evaluator]:
        """The evaluators, configured and prepared. One that reads tasks is left out where none are named."""
        found: dict[str, Evaluator] = {}
        settings = {
            **self.recipe.model_dump(include={"tasks", "task_path", "data_dir", "limit", "num_fewshot", "batch_size"}),
            "seed": self.recipe.seed,
            "allow_task_code": self.permissions.allow_task_code,
        }
        for label, spec in self.recipe.evaluators.items():
            cls = registry().get("evaluator", spec.name)
            fields = cls.Config.model_fields
            if "tasks" in fields and not self.recipe.tasks:
                continue
            if forbidden := PERMISSIONS.intersection(spec.options):
                raise OptionError(f"{min(forbidden)} is no option of an evaluator; give the flag on the command line")
            shared = {name: value for name, value in settings.items() if name in fields}
            config = registry().options("evaluator", spec.name, shared | spec.options)
            evaluator = cls(config)
            assert isinstance(evaluator, Evaluator)
            evaluator.progress = self.progress
            evaluator.prepare()
            found[label] = evaluator
        return found

    def need_calibration(self) -> CalibrationSpec:
        """Where the calibration text comes from; an error, before a model is loaded, if it is not there."""
        if self.recipe.calibration is None:
            raise OptionError("scoring needs calibration text: name it with --calibration FILE.jsonl")
        check_source(self.recipe.calibration.source)
        return self.recipe.calibration

    def calibration(self) -> CalibrationSet:
        """Draw the calibration set."""
        spec = self.need_calibration()
        longest = longest_row(self.model) or math.inf
        length = spec.max_length or min(DEFAULT_LENGTH, longest)
        if length > longest:
            raise OptionError(f"max_length {length} is beyond the model's {longest} positions")
        with self.progress.stage(f"read {spec.source}"):
            drawn = load_calibration(
                **spec.model_dump(exclude={"max_length"}),
                tokenizer=self.tokenizer,
                max_length=int(length),
                batch_size=self.recipe.batch_size,
                seed=self.recipe.seed,
            )
        self.report.calibration = drawn.description
        source = Path(spec.source).expanduser()
        self.report.resolved["calibration"] = spec.model_dump() | {
            "max_length": int(length),
            "source": str(source.absolute()) if source.exists() else spec.source,
        }
        return drawn

    def importance(self) -> CalibrationSet:
        """Score the blocks by every scorer, in shared sweeps; returns the calibration set for further scoring."""
        drawn = self.calibration()
        self.report.importance = measure(self.stack, drawn, self._scorers(), progress=self.progress)
        return drawn

    def _scorers(self, *labels: str, num_blocks: int | None = None) -> dict[str, Scorer]:
        made = {}
        for label in labels or self.recipe.scorers:
            spec = self.recipe.scorers[label]
            config = registry().options("scorer", spec.name, spec.options)
            cls = registry().get("scorer", spec.name)
            assert issubclass(cls, Scorer)
            made[label] = cls(num_blocks or len(self.stack), config)
        return made

    def plans(self) -> dict[str, PrunePlan]:
        """Score, and let the pruner choose blocks by each scorer."""
        recipe = self.recipe
        ratio = recipe.ratio
        if ratio is None and not recipe.blocks:
            ratio = self.report.resolved["ratio"] = DEFAULT_RATIO
        budget = Budget.of(len(self.stack), ratio=ratio, blocks=recipe.blocks, protect=recipe.protect)
        drawn = self.importance()
        spec = recipe.pruner
        pruner = registry().get("pruner", spec.name)(registry().options("pruner", spec.name, spec.options))
        assert isinstance(pruner, Pruner)
        return {label: self._plan(label, pruner, budget, drawn) for label in recipe.scorers}

    def _plan(self, label: str, pruner: Pruner, budget: Budget, drawn: CalibrationSet) -> PrunePlan:
        def scoring(removed: Sequence[int]) -> Importance:
            if not removed:
                return self.report.importance[label]
            scorers = self._scorers(label, num_blocks=len(self.stack) - len(set(removed)))
            return measure(self.stack, drawn, scorers, removed=removed, progress=self.progress)[label]

        plan = pruner.plan(scoring, budget)
        if len(plan.blocks) != budget.count or budget.protected.intersection(plan.blocks):
            raise PluginError(f"pruner {pruner.name!r} broke its budget: {budget.count} blocks, got {plan.blocks}")
        return plan.model_copy(update={"scorer": self.recipe.scorers[label].name, "pruner": pruner.name})

    def accept(self, plans: dict[str, PrunePlan], stage: Path | None) -> None:
        """Put the plans on record; an error, before any long work, if one of them cannot be carried out."""
        for label, plan in plans.items():
            check_label(label)
            if not plan.blocks:
                raise OptionError(f"plan {label!r} removes nothing")
            if plan.num_blocks != len(self.stack):
                raise OptionError(f"plan {label!r} is for {plan.num_blocks} blocks; the model has {len(self.stack)}")
            with pruned(self.model, plan.blocks):
                self.report.plans[label] = plan
                self.report.sizes[label] = Size.of(self.stack)
        if stage:
            need, free = sum(self.report.sizes[label].bytes for label in plans), shutil.disk_usage(stage).free
            if need > free:
                raise OutputError(f"the checkpoints need {need:,} bytes, and {stage.parent} has {free:,} left")
            if self.recipe.verify:
                check_memory(self.model)

    def evaluate(self, evaluators: dict[str, Evaluator], kind: str, *, intact: bool = False) -> list[Metric]:
        """What the evaluators of a kind say of the model as it is; the intact model's quality is kept."""
        found: dict[tuple[str, str], Metric] = {}
        cache, weights = MetricsCache(), None
        for label, evaluator in evaluators.items():
            if evaluator.kind != kind:
                continue
            tag = evaluator.fingerprint() if intact and kind == "quality" else None
            metrics = None
            if tag is not None:
                weights = weights or model_fingerprint(self.model, self.tokenizer)
                metrics = cache.get(weights, evaluator.name, tag)
            if metrics is None:
                metrics = evaluator.evaluate(self.model, self.tokenizer)
                if tag is not None and weights is not None:
                    cache.put(metrics, weights, evaluator.name, tag)
            else:
                with self.progress.stage(f"{label} of the intact model: known from an earlier run"):
                    pass
            for metric in metrics:
                if math.isnan(metric.value):
                    raise NonFiniteError(f"evaluator {label!r}: {metric.name} of {metric.task} is NaN")
                task = metric.task if label == evaluator.name else f"{metric.task} ({label})"
                if (task, metric.name) in found:
                    raise PluginError(f"evaluator {label!r} measures {metric.name} of {task} a second time")
                found[task, metric.name] = replace(metric, task=task)
        return list(found.values())

    def evaluate_costs(self, evaluators: dict[str, Evaluator]) -> None:
        """Time and space of all models, one right after the other, so that the machine's load is much the same."""
        costs = self.report.footprint
        costs[ORIGINAL] = self.evaluate(evaluators, "cost")
        for label, plan in self.report.plans.items():
            with pruned(self.model, plan.blocks):
                costs[label] = self.evaluate(evaluators, "cost")

    def write_checkpoint(self, label: str, stage: Path) -> None:
        """Write the model as it is now, with a card, under the label."""
        relative = Path("checkpoints") / label
        self.report.checkpoints[label] = relative
        with self.progress.stage(f"save {relative}"):
            (stage / relative).mkdir(parents=True)
            card = model_card(self.report, label)
            write(self.model, self.tokenizer, stage / relative, verify=self.recipe.verify, card=card)


def _absolute(path: str | Path) -> str:
    """A path as it is seen from anywhere; what is no path here, such as the id of a model on the hub, as it is."""
    here = Path(path).expanduser()
    return str(here.absolute()) if here.exists() else str(path)


def _refuse_precious(target: Path, model: str) -> None:
    """Never write into the model's own directory, one of its parents, or a home."""
    source = Path(model).expanduser()
    resolved = target.resolve()
    if source.exists() and (source.resolve() == resolved or resolved in source.resolve().parents):
        raise OutputError(f"the output {target} is the model's own directory or holds it; name another")
    if resolved == Path.home().resolve() or resolved in Path.home().resolve().parents:
        raise OutputError(f"the output {target} is a home directory or holds one; name another")
