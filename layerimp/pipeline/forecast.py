"""The forecast of `layerimp run` and `prune`, made without reading weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

from layerimp.component import versioned
from layerimp.errors import SurgeryError
from layerimp.models.traits import classifies
from layerimp.pipeline.blocks_for_size import Goal
from layerimp.pipeline.durations import Durations
from layerimp.pipeline.forecast_parts import ROUGHLY, MemoryForecast, PassForecast, Range, most_gaps
from layerimp.pipeline.healing import with_decisions
from layerimp.pipeline.keeping import longest_plan
from layerimp.pipeline.outline import Outline
from layerimp.pipeline.resolve import budget_for, budget_of, row_length
from layerimp.pipeline.trial import trial
from layerimp.report.results.part import Known, Part, Versioned
from layerimp.scoring.passes import check_offloading, shared_passes
from layerimp.steps import candidates, named, removed_by, runs_of

if TYPE_CHECKING:
    from layerimp.healer import Decision, Healer
    from layerimp.pipeline.prepare import Prepared
    from layerimp.recipe import Recipe
    from layerimp.steps import Step, Sublayer


class SizeForecast(Part):
    """A size before and after pruning."""

    original: int | float
    """The size of the intact model."""
    pruned: Range
    """The size of the pruned model, by arithmetic."""

    @property
    def left(self) -> Range:
        """The share of the size that stays."""
        return Range(least=self.pruned.least / self.original, most=self.pruned.most / self.original)


class TimeForecast(Part):
    """An estimate of the time, from one block of each kind with random weights; reality may be far off."""

    block_ms: Known
    """Measured: one block and one batch of the text, in milliseconds; null if unknown."""
    scoring_s: Known
    """Estimated: the first scoring, in seconds; null if unknown."""
    rescoring_s: Known
    """Estimated: the pruner's further scorings, at most, in seconds; null if unknown."""
    healing_s: Known
    """Estimated: healing every pruned model, in seconds; null if unknown, 0 for none."""
    model_s: Known
    """Estimated: measuring the quality of one model, in seconds; null if unknown, 0 for none."""
    evaluation_s: Known
    """Estimated: the same for all models, in seconds; null if unknown, as it is for `--keep`, whose search decides how
    many models it measures."""
    fidelity_s: Known
    """Estimated: comparing all models with the intact one, in seconds; null if unknown, as it is for `--keep`, 0 for
    none."""


class Forecast(Versioned):
    """The document that `run`, `prune` and `shrink` print with `--dry-run --json`."""

    schema_version: Literal["layerimp.forecast/1"] = versioned("layerimp.forecast/1")
    command: str
    """The command: `run`, `prune` or `shrink`."""
    model: str
    """The model, as it was named."""
    num_blocks: int
    """The number of blocks of the intact model."""
    scorers: list[str]
    """The labels of the scorers; empty if nothing is scored."""
    baselines: list[str]
    """The labels of the baselines."""
    healers: list[str]
    """The labels of the healers."""
    tasks: list[str]
    """The tasks that quality is measured on."""
    removed: Range
    """How many blocks are removed."""
    parameters: SizeForecast
    """Parameters."""
    bytes: SizeForecast
    """The bytes of the parameters in the stored dtype."""
    kv_bytes_per_token: SizeForecast | None
    """The KV cache per token, in bytes; null if not known."""
    text: str | None
    """The text for scorers and healers; null if none is read."""
    tokens: int
    """How many tokens are drawn from the text, at most."""
    passes: list[PassForecast]
    """The passes over the text for one scoring."""
    rescorings: int
    """How often pruners score the partly pruned model again, at most."""
    memory: MemoryForecast
    """Memory."""
    time: TimeForecast
    """Time, without reading the model and costs."""
    notes: list[str]
    """Notes for a reader."""


def forecast_of(prepared: Prepared) -> Forecast:
    """Forecast the work of a prepared command. Nothing is loaded, scored or written.

    Raises:
        InputError: something in the recipe is wrong, as far as this can be seen without the weights.
    """
    recipe, trusted = prepared.recipe, prepared.permissions.trust_remote_code
    dtype = None if prepared.offloaded else recipe.dtype  # the files of an offloaded model are copied as they are
    outline = Outline.of(recipe.model, dtype=dtype, trust_remote_code=trusted)
    length = row_length(recipe.calibration, outline.stack.model) if prepared.reads_text else 0
    return _Estimate(prepared, recipe, outline, length).document()


@dataclass(frozen=True)
class _Estimate:
    """What a forecast is made of: a prepared command and its recipe, its model, and the tokens in a row of its text."""

    prepared: Prepared
    recipe: Recipe
    outline: Outline
    length: int

    def document(self) -> Forecast:
        """Make the forecast."""
        prepared, recipe, selection = self.prepared, self.recipe, self.prepared.selection
        plans, count = self._removed()
        passes = self._passes() if prepared.scores else []
        rescorings = self._rescorings(count) if prepared.scores else []
        scorers = [label for label in selection.specs if label not in selection.baselines] if prepared.scores else []
        parameters, stored = (self._size(quantity, plans, count) for quantity in ("parameters", "bytes"))
        memory = self._memory()
        gaps = self._gaps(plans, count)
        decided, fewest = (self._decided(memory, int(number)) for number in (gaps.most, gaps.least))
        cached = math.isfinite(self.outline.ledger.outside.cache)
        return Forecast(
            command=prepared.command,
            model=recipe.model,
            num_blocks=len(self.outline.stack),
            scorers=scorers,
            baselines=list(selection.baselines),
            healers=list(prepared.healers),
            tasks=list(recipe.tasks or ()) if self._measures else [],
            removed=count,
            parameters=parameters,
            bytes=stored,
            kv_bytes_per_token=self._size("kv-cache", plans, count) if cached else None,
            text=recipe.calibration.source if prepared.reads_text else None,
            tokens=recipe.calibration.samples * self.length,
            passes=passes,
            rescorings=len(rescorings) * len(selection.specs),
            memory=memory,
            time=self._time(passes, rescorings, int(count.most), with_decisions(prepared.healers, decided)),
            notes=self._notes(decided, fewest, gaps),
        )

    @property
    def _measures(self) -> bool:
        """Whether the models are measured."""
        return self.prepared.command in ("run", "shrink")

    def _removed(self) -> tuple[list[frozenset[Sublayer]], Range]:
        """Return the sublayers that each plan removes, as far as they are named, and the number of steps."""
        count, recipe = len(self.outline.stack), self.recipe
        if self.prepared.plans is not None:
            plans = self.prepared.plans.values()
            for plan in plans:
                self._refuse(plan.blocks)
            return [removed_by(plan.blocks) for plan in plans], Range.of(*(len(plan.blocks) for plan in plans))
        if recipe.targets:
            kind = type(self.outline.stack.model).__name__
            goal = Goal.by_arithmetic(recipe, self.outline.ledger, kind)
            return [], Range.of(goal.fewest(), min(goal.budget.most, goal.fewest(lightest=True)))
        budget = budget_of(recipe, count)
        self._refuse(budget.forced)
        if recipe.keep is not None:
            return [], Range.of(0, budget.most)
        known = [removed_by(budget.forced)] if len(budget.forced) == budget.count else []
        return known, Range.of(budget.count)

    def _refuse(self, steps: Sequence[Step]) -> None:
        """Refuse steps that cannot be taken, as far as this can be seen without the weights."""
        if steps and (reason := self.outline.refusal(steps)):
            raise SurgeryError(f"{named(steps)} cannot be removed: {reason}")

    def _size(self, quantity: str, plans: Sequence[frozenset[Sublayer]], count: Range) -> SizeForecast:
        """Forecast a size before and after pruning."""
        ledger = self.outline.ledger
        whole = ledger.left(()).of(quantity)
        if plans:
            left = [ledger.left(sublayers).of(quantity) for sublayers in plans]
        else:
            budget = budget_for(self.recipe, int(count.most), ledger.num_blocks)
            free = {part for part in ledger.sublayers if part.block not in budget.protected} | removed_by(budget.forced)
            most = ledger.removable(quantity, free)[int(count.most)]
            left = [whole - most, whole - ledger.removable(quantity, free, lightest=True)[int(count.least)]]
        return SizeForecast(original=whole, pruned=Range.of(*left))

    def _passes(self) -> list[PassForecast]:
        """List the passes of one scoring, without scorers that are left out since they do not fit."""
        selection, num_blocks, cuts = self.prepared.selection, len(self.outline.stack), self.recipe.cuts
        for label in list(selection.specs):
            with selection.excusing(label):
                scorers, _ = selection.create(cuts, num_blocks, label)
                if self.prepared.offloaded:
                    check_offloading([scorers])
        selection.need_any()
        units = sum(map(len, candidates((), num_blocks, cuts)))
        rows, labels = self.recipe.calibration.samples, classifies(self.outline.stack.model)
        passes = shared_passes(selection.create(cuts, num_blocks))
        return [PassForecast.of(shared, units, rows, labels=labels) for shared in passes]

    def _rescorings(self, count: Range) -> list[float]:
        """List how often the pruner would score the pruned model, by a trial with equal scores.

        Args:
            count: The number of steps. Like a search, the trial goes down from the most to what the pruner can plan.

        Returns:
            For each time, the share of the steps that would be scored.
        """
        budget = budget_for(self.recipe, int(count.most), len(self.outline.stack))
        least = max(int(count.least), len(budget.forced), 1)
        asked = longest_plan(partial(trial, self.prepared.pruner, self.recipe.cuts), budget, least)
        return [share for (removed, _), share in asked.items() if removed]

    def _memory(self) -> MemoryForecast:
        offloaded = self.prepared.offloaded
        # The pruned files are tried even if they are not compared.
        verifies = self.recipe.output is not None and (self.recipe.verify or offloaded)
        return MemoryForecast.of(
            self.outline, self.recipe, self.prepared.permissions, offloaded=offloaded, verifies=verifies
        )

    def _time(
        self, passes: Sequence[PassForecast], rescorings: Sequence[float], most: int, healers: Sequence[Healer]
    ) -> TimeForecast:
        """Estimate the times of the stages."""
        prepared, recipe = self.prepared, self.recipe
        durations, pruned = self._durations, 1 if recipe.names_all else len(prepared.selection.specs)
        scoring = durations.scoring(passes)
        again = None
        if scoring is not None:
            scorers = prepared.selection.create(recipe.cuts, len(self.outline.stack))
            # Sweeps that are not separate score all steps each time.
            partly = all(shared.sweep.separate for shared in shared_passes(scorers))
            again = scoring * (sum(rescorings) if partly else len(rescorings))
            if (rows := prepared.pruner.rescored_rows) is not None:
                again *= min(1.0, rows / recipe.calibration.samples)
        searched = recipe.keep is not None
        healing = durations.healing(healers, gaps=-(-most // 2))  # about: blocks are often removed as neighbours
        # A search for an agreement measures no tasks, but the models at its end do.
        tried = searched and recipe.keep_of == "quality"
        # Without evaluators of tasks, a search measures on held-out text, which is not known yet.
        known = bool(recipe.tasks) or not searched
        each = durations.evaluation(prepared.evaluators, prepared.permissions) if known else None
        # Where one healer goes on from the other, the last model alone is measured.
        models = 2 if prepared.command == "shrink" else 1 + pruned * (1 + len(healers))
        compared = 0.0 if not self._measures or prepared.offloaded else durations.fidelity(prepared.evaluators)
        return TimeForecast(
            block_ms=durations.block_ms if passes or healers or self._measures else None,
            scoring_s=scoring,
            rescoring_s=again,
            healing_s=None if healing is None or (searched and healers) else healing * pruned,
            model_s=each,
            evaluation_s=None if each is None or tried else each * models,
            fidelity_s=None if compared is None or searched else compared * models,
        )

    @cached_property
    def _durations(self) -> Durations:
        return Durations(self.outline, self.recipe, self.length)

    def _decided(self, memory: MemoryForecast, gaps: int) -> dict[str, Decision]:
        """What healers decide by the memory: for a model without removed blocks, as those are not known; it is less."""
        return memory.decisions(self.prepared.healers, self.outline.stack, self._durations.scope(gaps))

    def _gaps(self, plans: Sequence[frozenset[Sublayer]], count: Range) -> Range:
        """Return at how many places blocks are removed."""
        if plans:
            return Range.of(*(len(list(runs_of(sublayers))) for sublayers in plans))
        counts = range(int(count.least), int(count.most) + 1)
        return Range.of(1, most_gaps(counts, len(self.outline.stack), self.recipe.cuts))

    def _notes(self, decided: Mapping[str, Decision], fewest: Mapping[str, Decision], gaps: Range) -> list[str]:
        notes = []
        for label, decision in decided.items():
            name = self.prepared.healers[label].name
            notes.append(f"{name}: {decision.words}")
            if others := dict(fewest[label].options.items() - decision.options.items()):
                options = ", ".join(f"{option}={value}" for option, value in others.items())
                notes.append(
                    f"{name}: that is for {gaps.most} gaps, the most there may be; for {gaps.least}, {options}"
                )
        if self.recipe.keep is not None:
            notes.append("how many blocks may go is found by measuring pruned models, and not known before")
        return [*notes, ROUGHLY] if self.prepared.reads_text else notes
