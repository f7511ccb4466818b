"""score -> plan -> prune -> evaluate: the stages of a run, each usable alone."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp.blocks import BlockStack, find_blocks
from layerimp.calibration import CalibrationSet, load_calibration
from layerimp.checkpoint import check_memory, write
from layerimp.engine import measure
from layerimp.errors import OptionError, OutputError, PluginError
from layerimp.evaluator import Evaluator, Metric
from layerimp.metrics_cache import MetricsCache, model_fingerprint
from layerimp.model import auto_class, load
from layerimp.model_card import model_card
from layerimp.progress import SILENT, Progress
from layerimp.pruner import Budget, PrunePlan, Pruner
from layerimp.recipe import ORIGINAL, PERMISSIONS, CalibrationSpec, Permissions, Recipe
from layerimp.registry import registry
from layerimp.report import Report, Size, made_by_layerimp
from layerimp.scorer import Importance, Scorer
from layerimp.staging import check_target, staged
from layerimp.surgery import pruned

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_RATIO = 0.25
DEFAULT_LENGTH = 256


def run(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Report:
    """Score a model, prune it by each scorer, and evaluate the intact and the pruned models.

    Raises:
        InputError: something in the recipe is wrong; found before any long work where it can be.
        LayerimpError: a stage failed; nothing is left under the output's name.
    """
    job = _Job(recipe, permissions or Permissions(), progress)
    with job.staged_output() as stage:
        job.need_calibration()
        evaluators = job.evaluators()
        job.open()
        report = job.report
        plans = job.plans()
        job.accept(plans, stage)
        report.metrics[ORIGINAL], report.footprint[ORIGINAL] = job.evaluate(evaluators, intact=True)
        for label, plan in plans.items():
            with pruned(job.model, plan.blocks):
                report.metrics[label], report.footprint[label] = job.evaluate(evaluators)
                if stage:
                    job.write_checkpoint(label, stage)
        if stage:
            report.write(stage)
    return report


def score_model(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Report:
    """Score a model, no more; see `run`."""
    job = _Job(recipe, permissions or Permissions(), progress)
    with job.staged_output() as stage:
        job.need_calibration()
        job.open()
        job.importance()
        if stage:
            job.report.write(stage)
    return job.report


def prune_model(
    recipe: Recipe,
    plans: dict[str, PrunePlan] | None = None,
    *,
    permissions: Permissions | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Prune a model into checkpoints, without evaluating it: by given plans, by named blocks, or by scores."""
    job = _Job(recipe, permissions or Permissions(), progress)
    if recipe.output is None:
        raise OptionError("prune writes a checkpoint: name a directory with --output")
    with job.staged_output() as stage:
        assert stage is not None
        by_score = plans is None and (recipe.ratio is not None or not recipe.blocks)
        if by_score:
            job.need_calibration()
        job.open()
        if plans is None and not by_score:
            budget = Budget.of(len(job.stack), blocks=recipe.blocks, protect=recipe.protect)
            named = PrunePlan(num_blocks=len(job.stack), blocks=list(budget.forced), reason="named by the user")
            plans = {"blocks": named}
        plans = plans or job.plans()
        job.accept(plans, stage)
        for label, plan in plans.items():
            with pruned(job.model, plan.blocks):
                job.write_checkpoint(label, stage)
        job.report.write(stage)
    return job.report


def evaluate_model(recipe: Recipe, *, permissions: Permissions | None = None, progress: Progress = SILENT) -> Report:
    """Evaluate a model as it is; see `run`."""
    job = _Job(recipe, permissions or Permissions(), progress)
    with job.staged_output() as stage:
        evaluators = job.evaluators()
        job.open()
        report = job.report
        report.metrics[ORIGINAL], report.footprint[ORIGINAL] = job.evaluate(evaluators, intact=True)
        if stage:
            report.write(stage)
    return report


class _Job:
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
        self.report = Report(recipe, len(self.stack), loader, sizes={ORIGINAL: _size(self.stack)})

    @contextmanager
    def staged_output(self) -> Iterator[Path | None]:
        """The output directory in the making, or None where none is asked for."""
        output = self.recipe.output
        if output is None:
            yield None
            return
        target = output.expanduser().absolute()
        _refuse_precious(target, self.recipe.model)
        overwrite = made_by_layerimp if self.recipe.overwrite else None
        check_target(target, overwrite=overwrite)
        with staged(target, overwrite=overwrite) as stage:
            yield stage
        self.report.output = target
        for label, path in self.report.checkpoints.items():
            self.report.checkpoints[label] = target / path

    def evaluators(self) -> list[Evaluator]:
        """The evaluators, configured and prepared. One that reads tasks is left out where none are named."""
        found = []
        settings = {
            **self.recipe.model_dump(include={"tasks", "task_path", "data_dir", "limit", "num_fewshot", "batch_size"}),
            "seed": self.recipe.seed,
            "allow_task_code": self.permissions.allow_task_code,
        }
        for spec in self.recipe.evaluators.values():
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
            found.append(evaluator)
        return found

    def need_calibration(self) -> CalibrationSpec:
        """Where the calibration text comes from; an error that says how to name it, where it is not named."""
        if self.recipe.calibration is None:
            raise OptionError("scoring needs calibration text: name it with --calibration FILE.jsonl")
        return self.recipe.calibration

    def calibration(self) -> CalibrationSet:
        """Draw the calibration set."""
        spec = self.need_calibration()
        positions = getattr(self.stack.config, "max_position_embeddings", None)
        longest = positions if isinstance(positions, int) else math.inf
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
            ratio = DEFAULT_RATIO
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
            if plan.num_blocks != len(self.stack):
                raise OptionError(f"plan {label!r} is for {plan.num_blocks} blocks; the model has {len(self.stack)}")
            with pruned(self.model, plan.blocks):
                self.report.plans[label] = plan
                self.report.sizes[label] = _size(self.stack)
        if stage:
            need, free = sum(self.report.sizes[label].bytes for label in plans), shutil.disk_usage(stage).free
            if need > free:
                raise OutputError(f"the checkpoints need {need:,} bytes, and {stage.parent} has {free:,} left")
            if self.recipe.verify:
                check_memory(self.model)

    def evaluate(self, evaluators: list[Evaluator], *, intact: bool = False) -> tuple[list[Metric], list[Metric]]:
        """Quality and cost of the model as it is now. The intact model's quality is kept, and used again."""
        found: dict[str, list[Metric]] = {"quality": [], "cost": []}
        cache, weights = MetricsCache(), None
        for evaluator in evaluators:
            tag = evaluator.fingerprint() if intact and evaluator.kind == "quality" else None
            metrics = None
            if tag is not None:
                weights = weights or model_fingerprint(self.model, self.tokenizer)
                metrics = cache.get(weights, evaluator.name, tag)
            if metrics is None:
                metrics = evaluator.evaluate(self.model, self.tokenizer)
                if tag is not None and weights is not None:
                    cache.put(metrics, weights, evaluator.name, tag)
            found[evaluator.kind] += metrics
        return found["quality"], found["cost"]

    def write_checkpoint(self, label: str, stage: Path) -> None:
        """Write the model as it is now, with a card, under the label."""
        relative = Path("checkpoints") / label
        self.report.checkpoints[label] = relative
        with self.progress.stage(f"save {relative}"):
            (stage / relative).mkdir(parents=True)
            card = model_card(self.report, label)
            write(self.model, self.tokenizer, stage / relative, verify=self.recipe.verify, card=card)


def _size(stack: BlockStack) -> Size:
    tensors = {id(tensor): tensor for tensor in stack.model.parameters()}.values()
    return Size(len(stack), sum(t.numel() for t in tensors), sum(t.nbytes for t in tensors))


def _refuse_precious(target: Path, model: str) -> None:
    """Never write into the model's own directory, one of its parents, or a home."""
    source = Path(model).expanduser()
    resolved = target.resolve()
    if source.exists() and (source.resolve() == resolved or resolved in source.resolve().parents):
        raise OutputError(f"the output {target} is the model's own directory or holds it; name another")
    if resolved == Path.home().resolve() or resolved in Path.home().resolve().parents:
        raise OutputError(f"the output {target} is a home directory or holds one; name another")
