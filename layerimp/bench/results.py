"""The results of a grid, made from the store alone, without a model or a plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from layerimp._paths import last_part
from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Result, blocks_in, score_by_block
from layerimp.bench.store import StoredCell
from layerimp.calibration.splits import few_judges
from layerimp.evaluation.packing import unpacked
from layerimp.fidelity.record import Fidelity
from layerimp.metric import Key, Metric, by_key
from layerimp.pruner import PrunePlan
from layerimp.report.build import ONE_DRAW, model_results, scored
from layerimp.report.document import Failure, Results
from layerimp.report.results.comparison import Design
from layerimp.report.results.contenders import Contender
from layerimp.report.results.data import distinct
from layerimp.report.results.models import PrunedModel, Repaired, Size
from layerimp.report.results.scores import Scored
from layerimp.report.rows import Measurements, Pruned, Removed
from layerimp.report.statistics import by_task


def grid_results(layout: Layout, records: Mapping[str, StoredCell], directory: Path | None = None) -> Results:
    """Make the results of a grid from its cells; cells of other grids in the same store are ignored.

    Args:
        layout: The grid.
        records: The cells that are stored, by key.
        directory: The directory of the store.
    """
    results = {key: record.result for key, record in records.items() if record.result is not None}
    cells = {key: cell for model in layout.models for key, cell in layout.cells(results.get, model).items()}
    own = {key: records[key] for key in cells if key in records}
    failed = sorted((str(cells[key]), record.error) for key, record in own.items() if record.result is None)
    design = _design(layout)
    models = [GridModel(layout, label, results) for label in layout.models]
    known = {model.label: model.measurements() for model in models}
    return Results(
        request=layout.grid.model_dump(mode="json"),
        design=design,
        models={label: model_results(design, label, model) for label, model in known.items() if model is not None},
        cells={"done": len(own) - len(failed), "failed": len(failed), "open": len(cells) - len(own)},
        failures=[Failure(what=cell, error=error) for cell, error in failed],
        left_out={},
        seconds=sum(record.seconds for record in own.values()),
        versions=sorted({record.versions for record in own.values()}),
        notes=[
            *([ONE_DRAW] if layout.grid.repeats == 1 else []),
            *(f"{label} has a pruner of its own: {own.spec.name}" for label, own in layout.own_pruners.items()),
            *filter(None, (model.same_text() for model in models)),
            *_few_judges(layout, known),
            *dict.fromkeys(
                f"{cell.model}: {cell.content['evaluator']} is left out: {results[key]['left_out']}"
                for key, cell in cells.items()
                if "left_out" in results.get(key, ())
            ),
        ],
        data_files=distinct(file for subject in layout.models.values() for file in subject.data_files),
        output=None if directory is None else str(directory.absolute()),
    )


def _few_judges(layout: Layout, known: Mapping[str, Measurements | None]) -> Iterator[str]:
    """Yield a note about each model for which fewer rows decided what healing keeps than there should be."""
    for label, measurements in known.items():
        left = measurements.left.values() if measurements else ()
        done = next((healed for models in left for pruned in models if (healed := pruned.model.healing)), None)
        source = last_part(str(layout.models[label].recipe.calibration.source))
        if done and (line := few_judges(done.judging_rows, source, classifies=done.accuracy is not None)):
            yield f"{label}: {line}"


def _design(layout: Layout) -> Design:
    grid = layout.grid
    return Design(
        models={label: subject.recipe for label, subject in layout.models.items()},
        measured={label: [measure.task for measure in subject.measures] for label, subject in layout.models.items()},
        scorers={label: entrant.spec for label, entrant in layout.scorers.items()},
        blind=[label for label, entrant in layout.scorers.items() if entrant.blind],
        baselines=list(grid.baselines),
        added=[label for label in grid.baselines if label not in grid.scorers],
        pruners={label: chooser.spec for label, chooser in layout.pruners.items()},
        healers={label: mender.spec for label, mender in layout.healers.items()},
        amounts=list(grid.amounts),
        repeats=grid.repeats,
        seed=grid.seed,
        protect=list(grid.protect),
        limit=grid.limit,
        limits=dict(grid.limits),
        num_fewshot=grid.num_fewshot,
    )


@dataclass
class _Evaluated:
    """What is known of a model: its metrics, its size, what a healer did, and how far it is from the intact one."""

    metrics: dict[Key, Metric] = field(default_factory=dict)
    size: Size | None = None
    healing: Repaired | None = None
    fidelity: Fidelity | None = None


@dataclass
class GridModel:
    """A model of a grid.

    Attributes:
        layout: The grid.
        label: The label of the model.
        results: The results of the cells that are done, by key.
    """

    layout: Layout
    label: str
    results: Mapping[str, Result]

    def _known(self, cell: Cell) -> Any:
        return self.results.get(cell.key)

    def measurements(self) -> Measurements | None:
        """Return all that is known of the model; None if it is not scored yet."""
        layout = self.layout
        scorings = {scorer: each for scorer in layout.scorers if (each := self._scorings(scorer))}
        if not scorings:
            return None
        num_blocks = blocks_in(next(iter(scorings.values()))[0])
        intact = self._evaluated(())
        compared = [contender for contender in layout.contenders.values() if contender.scorer in scorings]
        left: dict[Removed, list[Pruned]] = {key: [] for key in product(layout.pruners, layout.grid.amounts, compared)}
        for contender in compared:
            for removed, model in self._pruned(contender, num_blocks, intact.metrics):
                left[removed].append(model)
        return Measurements(
            num_blocks=num_blocks,
            size=intact.size,
            intact=intact.metrics,
            scored={scorer: self._scored(scorer, each) for scorer, each in scorings.items()},
            left={removed: models for removed, models in left.items() if models},
        )

    def _scorings(self, scorer: str) -> list[Result]:
        """Return the results that are known of a scorer's repeats."""
        layout = self.layout
        scorings = (self._known(layout.scoring(self.label, scorer, draw)) for draw in layout.draws(scorer))
        return [scoring for scoring in scorings if scoring is not None]

    def same_text(self) -> str:
        """Return a note about repeats that read the same text; empty if all texts differ."""
        for scorer in (name for name, entrant in self.layout.scorers.items() if not entrant.blind):
            texts = [each["calibration"]["fingerprint"] for each in self._scorings(scorer) if each.get("calibration")]
            if len(set(texts)) < len(texts):
                return (
                    f"{self.label}: {len(texts)} draws of calibration text gave {len(set(texts))} different ones; with "
                    "more text to draw from, the repeats would be worth their number"
                )
        return ""

    def _scored(self, scorer: str, scorings: Sequence[Result]) -> Scored:
        layout, label, first = self.layout, self.label, scorings[0]
        cost: float | None = 0.0
        if not layout.scorers[scorer].blind:
            timed = self._known(layout.costing(label, scorer))
            cost = timed and timed["bare_passes"]
        return scored(list(map(score_by_block, scorings)), cost, first["columns"], first["notes"], first["spans"])

    def _evaluated(self, blocks: tuple[int, ...], healer: str = "", text: int = 0) -> _Evaluated:
        """Return what is known of a model without some blocks."""
        known = _Evaluated()
        for measure in self.layout.models[self.label].all_measures:
            evaluated = self._known(self.layout.evaluation(self.label, blocks, measure, healer, text))
            if evaluated is None or "left_out" in evaluated:
                continue
            known.size = Size(**evaluated["size"])
            known.healing = evaluated.get("healing") and Repaired.model_validate(evaluated["healing"])
            if "fidelity" in evaluated:
                known.fidelity = Fidelity.model_validate(evaluated["fidelity"])
            else:
                known.metrics |= by_key(unpacked(evaluated))
        return known

    def _pruned(
        self, contender: Contender, num_blocks: int, intact: Mapping[Key, Metric]
    ) -> Iterator[tuple[Removed, Pruned]]:
        """Yield the models of a contender whose plans are known."""
        scorer = contender.scorer
        for draw, text in self.layout.repeats(contender):
            for (pruner, amount), _, blocks in self.layout.removals(self.results.get, self.label, scorer, draw):
                if blocks is not None:
                    known = self._evaluated(blocks, contender.healer, text)
                    model = PrunedModel(
                        draw=text,
                        plan=self._plan(pruner, scorer, blocks, num_blocks),
                        size=known.size,
                        metrics=by_task(known.metrics.values(), intact),
                        footprint={},
                        fidelity=known.fidelity,
                        healing=known.healing,
                        targets={},
                        checkpoint=None,
                    )
                    yield (pruner, amount, contender), Pruned(model, known.metrics)

    def _plan(self, pruner: str, scorer: str, blocks: Sequence[int], num_blocks: int) -> PrunePlan:
        layout = self.layout
        return PrunePlan(
            num_blocks=num_blocks,
            blocks=list(blocks),
            scorer=layout.scorers[scorer].spec.name,
            pruner=layout.chooser(scorer, pruner).spec.name,
            model=layout.models[self.label].recipe.model,
            nested=layout.chooser(scorer, pruner).nested,
        )
