"""The cells of a grid, found by a walk from known results to the cells that they lead to, without model or plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field

from layerimp.bench.cells import Cell, Result, blocks_in
from layerimp.bench.grid import Grid
from layerimp.component import Plain
from layerimp.evaluator import DataFile
from layerimp.healer import Scope
from layerimp.pruner import count_of
from layerimp.recipe import ComponentSpec, Recipe
from layerimp.report.results.contenders import Contender, contenders

Known = Callable[[str], Result | None]
"""Gives the result of the cell with a key, or None if it is not known."""


class Entrant(Plain):
    """A scorer of the grid."""

    spec: ComponentSpec
    """The scorer's name and options."""
    blind: bool
    """Whether the scorer ignores the model, so that no text changes its scores."""
    seeded: bool
    """Whether the scorer has a seed, which each repeat then sets."""
    code: str
    """A digest of the scorer's source."""


class Chooser(Plain):
    """A pruner of the grid."""

    spec: ComponentSpec
    """The pruner's name and options."""
    nested: bool
    """Whether one plan serves all counts."""
    code: str
    """A digest of the pruner's source."""


class Mender(Plain):
    """A healer of the grid."""

    spec: ComponentSpec
    """The healer's name and options."""
    code: str
    """A digest of the source of the healer and of its parts."""


class Measure(Plain):
    """One evaluation: an evaluator on one task."""

    evaluator: str
    """The label of the evaluator."""
    task: str
    """The task, or the evaluator's label if the evaluator uses no tasks."""
    tag: str
    """A fingerprint of everything except the model that can change the metrics."""
    optional: bool = False
    """Whether a model that cannot be measured is left out without an error."""


class Decided(Plain):
    """What a healer decided by the memory of the machine, and for what."""

    options: dict[str, Any]
    """The options by which the healer decides the same on any machine."""
    device: str
    """The type of the device, such as `cpu` or `cuda`."""
    scope: Scope
    """The size of the healing, with the most gaps that there may be."""

    def holds(self, device: str, scope: Scope) -> bool:
        """Whether the decision was made for such a device and healing, with no fewer gaps."""
        return (self.device, self.scope.length) == (device, scope.length) and scope.gaps <= self.scope.gaps


class Subject(Plain):
    """A model of the grid."""

    recipe: Recipe
    """The recipe of a run for this model."""
    identity: str
    """A digest of the model's files and of the dtype."""
    text: str
    """A digest of the model's calibration text."""
    heal_text: str | None = None
    """A digest of the further text for healing, and of what is left out of it; None if there is none."""
    fidelity_text: str = ""
    """A digest of the text for fidelity, if it is another, and its rows."""
    measures: tuple[Measure, ...]
    """The evaluations of quality."""
    comparison: Measure | None = None
    """How pruned models are compared with the intact one; None if they are not."""
    data_files: tuple[DataFile, ...] = ()
    """The local files of rows that the evaluators read."""
    decided: dict[str, Decided] = Field(default_factory=dict)
    """What healers decided, by their labels."""

    @property
    def all_measures(self) -> tuple[Measure, ...]:
        """The evaluations of a pruned model."""
        return self.measures if self.comparison is None else (*self.measures, self.comparison)


class Layout(Plain):
    """A grid, with everything that determines its cells."""

    grid: Grid
    models: dict[str, Subject]
    scorers: dict[str, Entrant]
    pruners: dict[str, Chooser]
    own_pruners: dict[str, Chooser] = Field(default_factory=dict)
    healers: dict[str, Mender] = Field(default_factory=dict)

    def draws(self, scorer: str) -> range:
        """The numbers of a scorer's repeats; a single number if all repeats would be the same."""
        entrant = self.scorers[scorer]
        if not entrant.blind:
            return range(self.grid.repeats)
        return range(max(self.grid.random_draws, self.grid.repeats) if entrant.seeded else 1)

    @property
    def contenders(self) -> dict[str, Contender]:
        """The contenders, by label: each scorer without healing, and each scorer with each healer."""
        return contenders(self.scorers, self.healers)

    def repeats(self, contender: Contender) -> list[tuple[int, int]]:
        """A contender's repeats, each as two numbers: of the scoring, and of the text for healing.

        If all scorings would be the same, healing is still repeated, each time on different text.
        """
        scorings = len(self.draws(contender.scorer))
        count = max(scorings, self.grid.repeats) if contender.healer else scorings
        return [(number % scorings, number) for number in range(count)]

    @property
    def text_seeds(self) -> range:
        """The seeds of all draws of calibration text, for scoring and for healing."""
        scorings = [len(self.draws(scorer)) for scorer, entrant in self.scorers.items() if not entrant.blind]
        healings = [len(self.repeats(contender)) for contender in self.contenders.values() if contender.healer]
        return range(self.grid.seed, self.grid.seed + max(scorings + healings, default=1))

    def spec(self, scorer: str, seed: int) -> ComponentSpec:
        """A scorer with the seed of a repeat, if the scorer has a seed."""
        entrant = self.scorers[scorer]
        if not entrant.seeded:
            return entrant.spec
        return entrant.spec.model_copy(update={"options": entrant.spec.options | {"seed": seed}})

    def scoring(self, model: str, scorer: str, draw: int) -> Cell:
        """The cell of one scoring of a model."""
        entrant, subject, seed = self.scorers[scorer], self.models[model], self.grid.seed + draw
        content = {
            "model": subject.identity,
            "calibration": None if entrant.blind else self._calibration(model, seed),
            "scorer": entrant.spec.name,
            "options": self.spec(scorer, seed).options,
            "code": entrant.code,
        }
        return Cell("scoring", model, content, scorer, seed=seed)

    def _calibration(self, model: str, seed: int) -> dict[str, Any]:
        spec, text = self.models[model].recipe.calibration, self.models[model].text
        return spec.model_dump(mode="json", exclude={"source"}) | {"text": text, "seed": seed}

    def fidelity_text(self, model: str) -> list[Any]:
        """What determines the text that fidelity is measured on, which neither calibration nor healing reads."""
        drawn, seeds = self._calibration(model, self.grid.seed), self.text_seeds
        return [self.models[model].fidelity_text, drawn, seeds.stop - seeds.start]

    def costing(self, model: str, scorer: str) -> Cell:
        """The cell that times a scorer on a model."""
        scoring = self.scoring(model, scorer, 0)
        # One draw of the text is enough: the others cost the same.
        return Cell("costing", model, {"scoring": scoring.key}, scorer, seed=scoring.seed)

    def identity(self, model: str) -> str | None:
        """The identity of a model for which no dtype was asked; None if there is no such model."""
        open_dtype = model in self.models and self.grid.models[model].dtype is None
        return self.models[model].identity if open_dtype else None

    def decisions(self, model: str, identity: str, healers: Mapping[str, Mender]) -> dict[str, Decided]:
        """What was decided for a model by those of some healers that are the same here; nothing for another model."""
        subject = self.models.get(model)
        if subject is None or subject.identity != identity:
            return {}
        return {label: each for label, each in subject.decided.items() if self.healers.get(label) == healers.get(label)}

    def chooser(self, scorer: str, pruner: str) -> Chooser:
        """The pruner that makes a scorer's plan under the label of a pruner: the scorer's own one, if it has one."""
        return self.own_pruners.get(scorer, self.pruners[pruner])

    def planning(self, model: str, scorer: str, draw: int, pruner: str, ratio: float, num_blocks: int) -> Cell:
        """The cell of the plan that is used at a ratio."""
        scoring, chooser = self.scoring(model, scorer, draw), self.chooser(scorer, pruner)
        protect, wanted = sorted(self.grid.protect), count_at(ratio, num_blocks)
        counts = {count_at(each, num_blocks) for each in self.grid.amounts}
        # A count that no budget allows must not spoil the plan that serves all other counts.
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
        self, model: str, blocks: tuple[int, ...], measure: Measure, healer: str = "", text: int = 0
    ) -> Cell:
        """The cell of one evaluation of a model without some blocks, unhealed or healed on the text of a repeat."""
        content: dict[str, Any] = {
            "model": self.models[model].identity,
            "blocks": sorted(blocks),
            "task": Path(measure.task).stem if measure.task.endswith(".yaml") else measure.task,
            "evaluator": measure.evaluator,
            "tag": measure.tag,
        }
        if measure == self.models[model].comparison:
            content["text"] = self.fidelity_text(model)
        if not healer:
            return Cell("evaluation", model, content)
        mender, seed, decided = self.healers[healer], self.grid.seed + text, self.models[model].decided.get(healer)
        content["healing"] = {
            "healer": mender.spec.name,
            "options": mender.spec.options | (decided.options if decided else {}),
            "code": mender.code,
            "calibration": self._calibration(model, seed),
            "heal_text": self.models[model].heal_text,
            "kept_apart": self.fidelity_text(model),  # healing is judged on other documents than these
            "batch_size": self.grid.batch_size,
            "allow_overlap": self.grid.allow_overlap,
        }
        return Cell("evaluation", model, content, healer=healer, seed=seed)

    def removed(self, plan: Result, ratio: float, num_blocks: int) -> tuple[int, ...]:
        """The blocks of a plan that are removed at a ratio, in order of removal."""
        return tuple(plan["blocks"][: count_at(ratio, num_blocks)])

    def cells(self, known: Known, model: str) -> dict[str, Cell]:
        """All cells of a model that the known results lead to, by key. More results lead to more cells."""
        cells: dict[str, Cell] = {}
        for cell in self._walk(known, model):
            cells.setdefault(cell.key, cell)
        return cells

    def _walk(self, known: Known, model: str) -> Iterator[Cell]:
        subject = self.models[model]
        intact = [self.evaluation(model, (), measure) for measure in subject.measures]
        yield from intact
        # If the intact model cannot be evaluated on a task, pruned models are not tried on it.
        measures = [each for each, cell in zip(subject.measures, intact, strict=True) if known(cell.key)]
        measures += [subject.comparison] if subject.comparison else []
        for contender in self.contenders.values():
            for draw, text in self.repeats(contender):
                yield self.scoring(model, contender.scorer, draw)
                for _, planning, blocks in self.removals(known, model, contender.scorer, draw):
                    yield planning
                    if blocks is not None:
                        healer = contender.healer
                        yield from (self.evaluation(model, blocks, measure, healer, text) for measure in measures)
        for scorer, entrant in self.scorers.items():
            if not entrant.blind and known(self.scoring(model, scorer, 0).key) is not None:
                yield self.costing(model, scorer)

    def removals(
        self, known: Known, model: str, scorer: str, draw: int
    ) -> Iterator[tuple[tuple[str, int | float], Cell, tuple[int, ...] | None]]:
        """Yield what a scoring leads to, once it is known: for each pruner and amount the planning.

        If the plan is known as well, the removed blocks are with it, else None.
        """
        if (scored := known(self.scoring(model, scorer, draw).key)) is None:
            return
        num_blocks = blocks_in(scored)
        for pruner, amount in product(self.pruners, self.grid.amounts):
            planning = self.planning(model, scorer, draw, pruner, amount, num_blocks)
            plan = known(planning.key)
            yield (pruner, amount), planning, None if plan is None else self.removed(plan, amount, num_blocks)


def count_at(ratio: float, num_blocks: int) -> int:
    """How many blocks to remove: an int is the number itself, a float is a share of all blocks."""
    return ratio if isinstance(ratio, int) else count_of(ratio, num_blocks)
