"""The forecast of a command, made without reading weights: counts, sizes, passes, memory and estimated times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerimp._paths import expanded
from layerimp.errors import SurgeryError
from layerimp.pipeline.ahead import budget_of
from layerimp.pipeline.durations import ROUGHLY, Durations, pass_forecast
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.output import PLANS, RECIPE
from layerimp.pipeline.prepare import prepare
from layerimp.pipeline.resolve import create_pruner, row_length
from layerimp.pipeline.scores import scorers_of
from layerimp.pipeline.targets import LATENCY, Goal
from layerimp.pruner import Budget
from layerimp.report.conversion import finite
from layerimp.report.document import PAGE, RESULTS
from layerimp.scorer import Importance
from layerimp.scoring.passes import Pass, shared_passes
from layerimp.scoring.series import ScoredSeries
from layerimp.steps import candidates, named, removed_by

if TYPE_CHECKING:
    from layerimp.pipeline.prepare import Command, Prepared
    from layerimp.progress import Progress
    from layerimp.pruner import PrunePlan, Pruner
    from layerimp.recipe import Permissions, Recipe
    from layerimp.report.forecast_documents import (
        Forecast,
        MemoryForecast,
        PassForecast,
        Range,
        SizeForecast,
        TimeForecast,
        WrittenFile,
    )
    from layerimp.scoring.selection import Selection
    from layerimp.steps import Step, Sublayer


def foretell(
    command: Command,
    asked: Recipe,
    plans: Mapping[str, PrunePlan] | None = None,
    *,
    permissions: Permissions,
    progress: Progress,
) -> Forecast:
    """Forecast the work of a command. Nothing is loaded, scored or written.

    Args:
        command: The command: run or prune.
        asked: The command's recipe.
        plans: Plans to apply; None if the recipe's scorers choose.
        permissions: Which code that came with data may run.
        progress: Where to report the defaults that are used.

    Raises:
        InputError: something in the recipe is wrong, as far as this can be seen without the weights.
    """
    prepared = prepare(command, asked, permissions, progress, plans)
    outline = Outline.of(prepared.recipe.model, trust_remote_code=permissions.trust_remote_code)
    length = row_length(prepared.recipe.calibration, outline.stack.model) if "calibration" in prepared.reads else 0
    return _Foretelling(prepared, outline, length).document()


@dataclass(frozen=True)
class _Foretelling:
    """The inputs of a forecast: a prepared command, its model, and the tokens in a row of its text."""

    prepared: Prepared
    outline: Outline
    length: int

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.prepared.recipe

    @property
    def offloaded(self) -> bool:
        """Whether the blocks of the model stay in their files."""
        return self.prepared.offloaded

    @property
    def selection(self) -> Selection:
        """The scorers."""
        return self.prepared.selection

    @property
    def scored(self) -> bool:
        """Whether blocks are scored."""
        return "calibration" in self.prepared.reads

    def document(self) -> Forecast:
        """Make the forecast."""
        recipe, outline, evaluated = self.recipe, self.outline, self.prepared.command == "run"
        removed, counts = self._removed()
        passes = self._passes() if self.scored else []
        rescorings = self._rescorings(counts[1]) if self.scored else 0
        cache = self._size("kv-cache", removed, counts)
        sizes = self._size("bytes", removed, counts)
        assert sizes is not None
        parameters = self._size("parameters", removed, counts)
        assert parameters is not None
        return {
            "schema_version": "layerimp.forecast/1",
            "command": self.prepared.command,
            "model": recipe.model,
            "num_blocks": len(outline.stack),
            "scorers": [label for label in self.selection.specs if label not in self.selection.baselines]
            if self.scored
            else [],
            "baselines": list(self.selection.baselines),
            "healers": list(self.prepared.healers),
            "tasks": list(recipe.tasks or ()) if evaluated else [],
            "removed": {"least": counts[0], "most": counts[1]},
            "parameters": parameters,
            "bytes": sizes,
            "kv_bytes_per_token": cache,
            "text": recipe.calibration.source if self.scored else None,
            "tokens": recipe.calibration.samples * self.length,
            "passes": [self._pass(each) for each in passes],
            "rescorings": rescorings,
            "memory": self._memory(),
            "time": self._time(passes, rescorings, counts[1]),
            "writes": self._writes(sizes["pruned"]),
            "notes": self._notes(),
        }

    def _removed(self) -> tuple[list[frozenset[Sublayer]], tuple[int, int]]:
        """Return the sublayers that each plan removes, as far as they are named, and the least and most steps."""
        count, recipe = len(self.outline.stack), self.recipe
        if self.prepared.plans is not None:
            plans = self.prepared.plans.values()
            for plan in plans:
                self._refuse(plan.blocks)
            lengths = [len(plan.blocks) for plan in plans]
            return [removed_by(plan.blocks) for plan in plans], (min(lengths), max(lengths))
        if recipe.targets:
            goal = Goal.by_arithmetic(
                recipe, self.outline.ledger, type(self.outline.stack.model).__name__, offloaded=self.offloaded
            )
            most = goal.budget.most if LATENCY in recipe.targets else min(goal.budget.most, goal.fewest(lightest=True))
            return [], (goal.fewest(), most)
        if recipe.keep is not None:
            self._refuse(recipe.blocks)
            return [], (0, budget_of(recipe, count).most)
        budget = budget_of(recipe, count)
        self._refuse(budget.forced)
        known = [removed_by(budget.forced)] if len(budget.forced) == budget.count else []
        return known, (budget.count, budget.count)

    def _refuse(self, steps: Sequence[Step]) -> None:
        """Refuse steps that cannot be taken, as far as this can be seen without the weights."""
        if steps and (reason := self.outline.refusal(steps)):
            raise SurgeryError(f"{named(steps)} cannot be removed: {reason}")

    def _budget(self, count: int) -> Budget:
        recipe = self.recipe
        return Budget.exactly(
            count, len(self.outline.stack), protect=recipe.protect, forced=recipe.blocks, cuts=recipe.cuts
        )

    def _size(
        self, quantity: str, removed: Sequence[frozenset[Sublayer]], counts: tuple[int, int]
    ) -> SizeForecast | None:
        """Forecast a size before and after pruning; None if the size of the cache is not known."""
        ledger = self.outline.ledger
        whole = ledger.left(()).of(quantity)
        if finite(whole) is None:
            return None
        if removed:
            left = [ledger.left(sublayers).of(quantity) for sublayers in removed]
        else:
            budget = self._budget(counts[1])
            free = {part for part in ledger.sublayers if part.block not in budget.protected} | removed_by(budget.forced)
            most = ledger.removable(quantity, free)[counts[1]]
            left = [whole - most, whole - ledger.removable(quantity, free, lightest=True)[counts[0]]]
        return {"original": whole, "pruned": {"least": round(min(left), 6), "most": round(max(left), 6)}}

    def _passes(self) -> list[Pass]:
        """List the passes of one scoring, without scorers that are left out since they do not fit."""
        blocks, seams = steps = candidates((), len(self.outline.stack), self.recipe.cuts)
        for label in list(self.selection.specs):
            with self.selection.excusing(label):
                of_blocks, of_seams = scorers_of(steps, self.selection, label)
                ScoredSeries("seams", seams, of_seams, "seam").check()
                for each in shared_passes({(label, 0): of_blocks[label]}) if self.offloaded else ():
                    each.check_offloading()
        self.selection.need_any()
        scorers = {(label, 0): scorer for label, scorer in self.selection.create(len(blocks)).items()}
        if seams:
            scorers |= {(label, 1): scorer for label, scorer in self.selection.create(len(seams)).items()}
        return shared_passes(scorers)

    def _pass(self, each: Pass) -> PassForecast:
        units = sum(map(len, candidates((), len(self.outline.stack), self.recipe.cuts)))
        return pass_forecast(each, units)

    def _rescorings(self, count: int) -> int:
        """Count how often the pruner would score the pruned model, for all scorers, by a trial with equal scores."""
        num_blocks, cuts = len(self.outline.stack), self.recipe.cuts
        pruner: Pruner = create_pruner(self.recipe.pruner, cuts)
        seen: set[frozenset[Sublayer]] = set()

        def scoring(removed: Sequence[Step]) -> Importance:
            seen.add(removed_by(removed))
            steps = sorted((s for series in candidates(removed, num_blocks, cuts) for s in series), key=_depth)
            return Importance([0.0] * len(steps), steps)

        pruner.within_budget(scoring, self._budget(count))
        return len(seen - {frozenset()}) * len(self.selection.specs)

    def _memory(self) -> MemoryForecast:
        # The pruned files are tried even if they are not compared.
        verifies = self.recipe.output is not None and (self.recipe.verify or self.offloaded)
        return self.outline.memory(self.recipe, self.prepared.permissions, offloaded=self.offloaded, verifies=verifies)

    def _time(self, passes: Sequence[Pass], rescorings: int, most: int) -> TimeForecast:
        """Estimate the times of the stages."""
        recipe, durations = self.recipe, Durations(self.outline, self.recipe, self.length)
        scoring = durations.scoring([self._pass(each) for each in passes])
        again = None
        if scoring is not None:
            again = scoring * rescorings / max(1, len(self.selection.specs))
            if (rows := create_pruner(recipe.pruner, recipe.cuts).rescored_rows) is not None:
                again *= min(1.0, rows / recipe.calibration.samples)
        healers, pruned = [] if self.offloaded else list(self.prepared.healers.values()), len(self.selection.specs)
        gaps = -(-most // 2)  # blocks that go are often neighbours
        healing, searched = durations.healing(healers, gaps) if healers else 0.0, recipe.keep is not None
        # Without evaluators of tasks, a search measures on held-out text, which is not known yet.
        each = (
            durations.evaluation(self.prepared.evaluators, self.prepared.permissions)
            if recipe.tasks or not searched
            else None
        )
        models = 1 + pruned * (1 + len(healers))
        return {
            "block_ms": finite(durations.block and 1000 * durations.block) if passes or healers else None,
            "scoring_s": finite(scoring),
            "rescoring_s": finite(again),
            "healing_s": finite(None if healing is None or (searched and healers) else healing * pruned),
            "model_s": finite(each),
            "evaluation_s": finite(None if each is None or searched else each * models),
        }

    def _writes(self, weights: Range) -> list[WrittenFile]:
        """List the files that would be written, with the sizes of weights."""
        if self.recipe.output is None:
            return []
        output = expanded(self.recipe.output).absolute()
        files = [RECIPE, RESULTS, PLANS]
        files += [PAGE] if self.prepared.command == "run" else []
        labels = [label for label in self.selection.specs if label not in self.selection.baselines]
        if not self.scored:
            labels = ["blocks"] if self.prepared.plans is None else list(self.prepared.plans)
        labels += [f"{label}+{healer}" for label in labels for healer in self.prepared.healers]
        small: list[WrittenFile] = [{"path": str(output / name), "bytes": None} for name in files]
        return small + [{"path": str(output / "checkpoints" / label), "bytes": weights} for label in labels]

    def _notes(self) -> list[str]:
        notes = []
        if LATENCY in self.recipe.targets:
            notes.append("the number of blocks for a latency is measured on the loaded model, and not known before")
        if self.recipe.keep is not None:
            notes.append("how many blocks may go is found by measuring pruned models, and not known before")
        if not self.scored:
            return notes
        return [*notes, ROUGHLY]


def _depth(step: Step) -> Sublayer:
    return min(removed_by([step]))
