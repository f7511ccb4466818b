"""The findings of a grid as data, made from the store alone, without a model or a plugin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell, Result, blocks_in, score_by_step
from layerimp.bench.store import Record
from layerimp.evaluation.packing import unpacked
from layerimp.evaluator import Metric
from layerimp.report.data import Size
from layerimp.report.documents import Repaired
from layerimp.report.findings import Contender, Design, Key, ModelFindings, Pruned, Scored
from layerimp.report.model_findings import ONE_DRAW, common_steps, model_findings
from layerimp.report.results import Findings
from layerimp.steps import Step


def find(layout: Layout, records: Mapping[str, Record]) -> Findings:
    """Make the findings of a grid from its cells; cells of other grids in the same store are ignored."""
    results = {key: record.result for key, record in records.items() if record.result is not None}
    cells = {key: cell for model in layout.models for key, cell in layout.cells(results.get, model).items()}
    own = {key: records[key] for key in cells if key in records}
    failed = [(str(cells[key]), record.error) for key, record in own.items() if record.result is None]
    done = len(own) - len(failed)
    design = _design(layout)
    found = {label: _Model(layout, label, results).findings(design) for label in layout.models}
    return Findings(
        design=design,
        models={label: one for label, one in found.items() if one is not None},
        cells={"done": done, "failed": len(failed), "open": len(cells) - len(own)},
        failures=sorted(failed),
        seconds=sum(record.seconds for record in own.values()),
        versions=sorted({record.versions for record in own.values()}),
        notes=[
            *([ONE_DRAW] if layout.grid.repeats == 1 else []),
            *(note for label in layout.models if (note := _same_text(layout, label, results))),
            *(note for one in found.values() if one for note in one.notes),
        ],
    )


def _design(layout: Layout) -> Design:
    grid = layout.grid
    return Design(
        models={label: subject.recipe for label, subject in layout.models.items()},
        measured={label: [one.task for one in subject.measures] for label, subject in layout.models.items()},
        scorers={label: entrant.spec for label, entrant in layout.scorers.items()},
        blind=[label for label, entrant in layout.scorers.items() if entrant.blind],
        baselines=list(grid.baselines),
        pruners={label: chooser.spec for label, chooser in layout.pruners.items()},
        healers={label: mender.spec for label, mender in layout.healers.items()},
        ratios=grid.amounts,
        repeats=grid.repeats,
        seed=grid.seed,
        cuts=grid.cuts,
        protect=grid.protect,
        limit=grid.limit,
        num_fewshot=grid.num_fewshot,
        asked=grid.model_dump(mode="json"),
    )


def _same_text(layout: Layout, label: str, results: Mapping[str, Result]) -> str:
    """Return a note about repeats that read the same text; empty if all texts differ."""
    for scorer in (name for name, entrant in layout.scorers.items() if not entrant.blind):
        found = [results.get(layout.scoring(label, scorer, draw).key) for draw in layout.draws(scorer)]
        texts = [one["calibration"]["fingerprint"] for one in found if one and one.get("calibration")]
        if len(set(texts)) < len(texts):
            return (
                f"{label}: {len(texts)} draws of calibration text gave {len(set(texts))} different ones; with more "
                "text to draw from, the repeats would be worth their number"
            )
    return ""


@dataclass
class _Model:
    """A model of the layout, with all results."""

    layout: Layout
    label: str
    results: Mapping[str, Result]

    def _known(self, cell: Cell) -> Any:
        return self.results.get(cell.key)

    def findings(self, design: Design) -> ModelFindings | None:
        """Return the findings for the model; None if it is not scored yet."""
        layout = self.layout
        scorings = {scorer: each for scorer in layout.scorers if (each := self._scorings(scorer))}
        if not scorings:
            return None
        num_blocks = blocks_in(next(iter(scorings.values()))[0])
        steps = common_steps(score_by_step(one) for found in scorings.values() for one in found)
        intact, size, _ = self._evaluated(())
        compared = [one for one in layout.contenders.values() if one.scorer in scorings]
        return model_findings(
            design,
            self.label,
            num_blocks=num_blocks,
            size=size,
            intact=intact,
            scored={scorer: self._scored(scorer, each, steps) for scorer, each in scorings.items()},
            left={
                (pruner, ratio, one): found
                for pruner, ratio, one in product(layout.pruners, layout.grid.amounts, compared)
                if (found := list(self._pruned(pruner, ratio, one, num_blocks)))
            },
        )

    def _scorings(self, scorer: str) -> list[Result]:
        """Return the results that are known of a scorer's repeats."""
        layout = self.layout
        found = (self._known(layout.scoring(self.label, scorer, draw)) for draw in layout.draws(scorer))
        return [one for one in found if one is not None]

    def _scored(self, scorer: str, scorings: Sequence[Result], steps: Sequence[Step]) -> Scored:
        layout, label = self.layout, self.label
        scores = [[found[step] for step in steps] for found in map(score_by_step, scorings)]
        cost: float | None = 0.0
        if not layout.scorers[scorer].blind:
            timed = self._known(layout.costing(label, scorer))
            cost = timed and timed["bare_passes"]
        return Scored.of(steps, scores, cost)

    def _evaluated(
        self, blocks: tuple[Step, ...], healer: str = "", text: int = 0
    ) -> tuple[dict[Key, Metric], Size | None, Repaired | None]:
        """Return the known metrics of a model without some steps, its size, and what a healer did."""
        metrics: dict[Key, Metric] = {}
        size = healing = None
        for measure in self.layout.models[self.label].measures:
            if (found := self._known(self.layout.evaluation(self.label, blocks, measure, healer, text))) is not None:
                size = Size(**found["size"])
                healing = found.get("healing")
                metrics |= {(metric.task, metric.name): metric for metric in unpacked(found)}
        return metrics, size, healing

    def _pruned(self, pruner: str, ratio: float, contender: Contender, num_blocks: int) -> Iterator[Pruned]:
        layout = self.layout
        for draw, text in layout.repeats(contender):
            plan = self._known(layout.planning(self.label, contender.scorer, draw, pruner, ratio, num_blocks))
            if plan is not None:
                blocks = layout.removed(plan, ratio, num_blocks)
                metrics, size, healing = self._evaluated(blocks, contender.healer, text)
                yield Pruned(text, blocks, size, metrics, healing)
