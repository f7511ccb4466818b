"""Which cells a grid has: a walk from what is known to what is wanted next. It needs no model and no plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from layerimp.bench.cells import Cell, Result, blocks_in
from layerimp.bench.grid import RANDOM_DRAWS, Grid
from layerimp.pruner import count_of
from layerimp.recipe import ComponentSpec, Part, Recipe
from layerimp.report.findings import Contender, contenders
from layerimp.steps import Step, simplest

Known = Callable[[str], Result | None]
"""What the cell under a key came to; None where that is not known."""


class Entrant(Part):
    """A scorer that takes part."""

    spec: ComponentSpec = Field(description="Its name and its options.")
    blind: bool = Field(description="Whether it looks at nothing, so that no text changes its scores.")
    seeded: bool = Field(description="Whether it has a seed, which each repeat then sets.")
    shards: bool = Field(False, description="Whether parts of a calibration set can be scored apart.")
    code: str = Field(description="A digest of its source.")


class Chooser(Part):
    """A pruner that takes part."""

    spec: ComponentSpec = Field(description="Its name and its options.")
    nested: bool = Field(description="Whether one plan serves all counts.")
    code: str = Field(description="A digest of its source.")


class Mender(Part):
    """A healer that takes part."""

    spec: ComponentSpec = Field(description="Its name and its options.")
    code: str = Field(description="A digest of its source.")


class Measure(Part):
    """One thing to evaluate."""

    evaluator: str = Field(description="The label of the evaluator.")
    task: str = Field(description="The task; the evaluator's label where it reads none.")
    tag: str = Field(description="A fingerprint of all that changes its metrics, besides the model.")

    def within(self, recipe: Recipe) -> Recipe:
        """The recipe with this evaluator alone, and with one task where it reads any."""
        tasks = (self.task,) if self.task in (recipe.tasks or ()) else ()
        evaluators = {self.evaluator: recipe.evaluators[self.evaluator]}
        return recipe.model_copy(update={"tasks": tasks, "evaluators": evaluators})


class Subject(Part):
    """A model that takes part."""

    recipe: Recipe = Field(description="What is asked of it.")
    identity: str = Field(description="A digest of its files and of the dtype.")
    text: str = Field(description="A digest of its calibration text.")
    heal_text: str | None = Field(None, description="A digest of the text beyond that; None where there is none.")
    measures: tuple[Measure, ...] = Field(description="What it is evaluated on.")


class Layout(Part):
    """A grid, with all that names its cells."""

    grid: Grid
    models: dict[str, Subject]
    scorers: dict[str, Entrant]
    pruners: dict[str, Chooser]
    healers: dict[str, Mender] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _counts_apart(cls, value: Any) -> Any:
        """Read a store from before `counts` was a field, when `ratios` held shares and numbers of blocks alike."""
        grid = value.get("grid") if isinstance(value, dict) else None
        if not isinstance(grid, dict) or "counts" in grid or "ratios" not in grid:
            return value
        counts = [each for each in grid["ratios"] if each >= 1]
        ratios = [each for each in grid["ratios"] if each < 1]
        return value | {"grid": grid | {"counts": counts, "ratios": ratios}}

    def draws(self, scorer: str) -> range:
        """The numbers of a scorer's repeats: one, where they would all be the same."""
        entrant = self.scorers[scorer]
        if not entrant.blind:
            return range(self.grid.repeats)
        return range(max(RANDOM_DRAWS, self.grid.repeats) if entrant.seeded else 1)

    @property
    def contenders(self) -> dict[str, Contender]:
        """What is compared, by label: each scorer's choice, as it is and healed by each healer."""
        return contenders(self.scorers, self.healers)

    def repeats(self, contender: Contender) -> list[tuple[int, int]]:
        """A contender's repeats, each as the numbers of its scoring and of the text that it is healed on.

        Where all scorings would be the same, what is healed is repeated nevertheless: on other text.
        """
        scorings = len(self.draws(contender.scorer))
        count = max(scorings, self.grid.repeats) if contender.healer else scorings
        return [(number % scorings, number) for number in range(count)]

    def spec(self, scorer: str, seed: int) -> ComponentSpec:
        """A scorer in the repeat with a seed."""
        entrant = self.scorers[scorer]
        if not entrant.seeded:
            return entrant.spec
        return entrant.spec.model_copy(update={"options": entrant.spec.options | {"seed": seed}})

    def scoring(self, model: str, scorer: str, draw: int) -> Cell:
        """One scoring of one model."""
        entrant, subject, seed = self.scorers[scorer], self.models[model], self.grid.seed + draw
        content = {
            "model": subject.identity,
            "calibration": None if entrant.blind else self._calibration(model, seed),
            "scorer": entrant.spec.name,
            "options": self.spec(scorer, seed).options,
            "code": entrant.code,
        }
        if self.grid.cuts != "blocks":  # which had no name before there was anything else
            content["cuts"] = self.grid.cuts
        return Cell("scoring", model, content, scorer, seed=seed)

    def _calibration(self, model: str, seed: int) -> dict[str, Any]:
        spec, text = self.models[model].recipe.calibration, self.models[model].text
        return spec.model_dump(mode="json", exclude={"source"}) | {"text": text, "seed": seed}

    def costing(self, model: str, scorer: str) -> Cell:
        """What one scorer costs on one model."""
        scoring = self.scoring(model, scorer, 0)
        # Text of another draw costs the same.
        return Cell("costing", model, {"scoring": scoring.key}, scorer, seed=scoring.seed)

    def planning(self, model: str, scorer: str, draw: int, pruner: str, ratio: float, num_blocks: int) -> Cell:
        """The plan that serves a ratio."""
        scoring, chooser = self.scoring(model, scorer, draw), self.pruners[pruner]
        protect, wanted = sorted(self.grid.protect), count_at(ratio, num_blocks)
        counts = {count_at(each, num_blocks) for each in self.grid.amounts}
        # What no budget allows must not spoil the plan that serves all others.
        possible = {count for count in counts if 0 < count < num_blocks - len(set(protect))}
        count = max(possible) if chooser.nested and wanted in possible else wanted
        content = {
            "scoring": scoring.key,
            "pruner": chooser.spec.name,
            "options": chooser.spec.options,
            "code": chooser.code,
            "count": count,
            "protect": protect,
        }
        return Cell("planning", model, content, scorer, seed=scoring.seed)

    def evaluation(
        self, model: str, blocks: tuple[Step, ...], measure: Measure, healer: str = "", text: int = 0
    ) -> Cell:
        """What is left of one model without what steps remove, as it is, or healed on the text of a repeat."""
        content: dict[str, Any] = {
            "model": self.models[model].identity,
            "blocks": simplest(blocks),
            "task": Path(measure.task).stem if measure.task.endswith(".yaml") else measure.task,
            "evaluator": measure.evaluator,
            "tag": measure.tag,
        }
        if not healer:
            return Cell("evaluation", model, content)
        mender, seed = self.healers[healer], self.grid.seed + text
        content["healing"] = {
            "healer": mender.spec.name,
            "options": mender.spec.options,
            "code": mender.code,
            "calibration": self._calibration(model, seed),
        }
        if further := self.models[model].heal_text:  # which had no name before there was any
            content["healing"]["heal_text"] = further
        return Cell("evaluation", model, content, healer=healer, seed=seed)

    def removed(self, plan: Result, ratio: float, num_blocks: int) -> tuple[Step, ...]:
        """The steps that are taken at a ratio, in their order, from the plan that serves it."""
        return tuple(plan["blocks"][: count_at(ratio, num_blocks)])

    def cells(self, known: Known, model: str) -> dict[str, Cell]:
        """All cells of a model that the known ones lead to, by key; more as more becomes known."""
        found: dict[str, Cell] = {}
        for cell in self._walk(known, model):
            found.setdefault(cell.key, cell)
        return found

    def _walk(self, known: Known, model: str) -> Iterator[Cell]:
        subject = self.models[model]
        intact = [self.evaluation(model, (), measure) for measure in subject.measures]
        yield from intact
        # What the intact model cannot be measured on is not tried on the others.
        measures = [each for each, cell in zip(subject.measures, intact, strict=True) if known(cell.key)]
        for scorer in self.scorers:
            for draw in self.draws(scorer):
                scoring = self.scoring(model, scorer, draw)
                yield scoring
                if (scored := known(scoring.key)) is not None:
                    yield from self._beyond(known, model, scorer, draw, blocks_in(scored), measures)

    def _beyond(
        self, known: Known, model: str, scorer: str, draw: int, num_blocks: int, measures: list[Measure]
    ) -> Iterator[Cell]:
        """The cells behind a scoring."""
        for pruner, ratio in product(self.pruners, self.grid.amounts):
            planning = self.planning(model, scorer, draw, pruner, ratio, num_blocks)
            yield planning
            if (plan := known(planning.key)) is not None:
                blocks = self.removed(plan, ratio, num_blocks)
                yield from (self.evaluation(model, blocks, measure) for measure in measures)
                for healer, text in self._healings(scorer, draw):
                    yield from (self.evaluation(model, blocks, measure, healer, text) for measure in measures)
        if draw == 0 and not self.scorers[scorer].blind:
            yield self.costing(model, scorer)

    def _healings(self, scorer: str, draw: int) -> Iterator[tuple[str, int]]:
        """The healers, and the texts that they heal on, of the models that one scoring leads to."""
        for healer in self.healers:
            repeats = self.repeats(Contender(scorer, healer))
            yield from ((healer, text) for scoring, text in repeats if scoring == draw)


def count_at(ratio: float, num_blocks: int) -> int:
    """How many blocks go: a whole number is one, and any other a share of all."""
    return ratio if isinstance(ratio, int) else count_of(ratio, num_blocks)
