"""Made-up runs, whose results are built by the code that builds those of real runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from support.recipes import make_recipe

from layerimp.calibration.sampling import Calibration
from layerimp.evaluator import Metric
from layerimp.fidelity import Fidelity
from layerimp.pipeline.output import write_output
from layerimp.pipeline.reporting import recorded, results_of
from layerimp.pipeline.run import CutModel, Run, StageResults
from layerimp.pruner import PrunePlan
from layerimp.recipe import ComponentSpec, Recipe
from layerimp.report.document import Results
from layerimp.report.results.comparison import ModelResults
from layerimp.report.results.contenders import Contender
from layerimp.report.results.models import Repaired, Size
from layerimp.report.results.search import QualitySearch
from layerimp.scorer import Importance
from layerimp.sizes.targets import Reached


def acc(value: float, stderr: float | None = None, task: str = "sst2") -> Metric:
    return Metric(task, "acc", value, stderr)


def ppl(value: float, task: str = "wikitext") -> Metric:
    return Metric(task, "word_perplexity", value, higher_is_better=False)


def measured(right: int) -> list[Metric]:
    """The accuracy of a model that is right on so many of 200 documents."""
    documents = (1.0,) * right + (0.0,) * (200 - right)
    return [Metric("mood", "acc", right / 200, 0.02, floor=0.5, documents=documents)]


def repaired(loss: Mapping[str, float], recovered: float | None = None) -> Repaired:
    """A model that a healer repaired."""
    return Repaired(gaps=[], loss=dict(loss), accuracy=None, judging_rows=32, recovered=recovered)


@dataclass
class MadeUpRun:
    """What a run scored, removed and measured, by label; healed models by SCORER+HEALER."""

    recipe: Recipe
    num_blocks: int
    loader: str
    calibration: Any = None
    sizes: dict[str, Size] = field(default_factory=dict)
    importance: dict[str, Importance] = field(default_factory=dict)
    plans: dict[str, PrunePlan] = field(default_factory=dict)
    reached: dict[str, Sequence[Reached]] = field(default_factory=dict)
    healed: dict[str, Repaired] = field(default_factory=dict)
    checkpoints: dict[str, Path] = field(default_factory=dict)
    metrics: dict[str, list[Metric]] = field(default_factory=dict)
    footprint: dict[str, list[Metric]] = field(default_factory=dict)
    fidelity: dict[str, Fidelity] = field(default_factory=dict)
    search: QualitySearch | None = None
    settled: dict[str, Any] = field(default_factory=dict)
    blind: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def run(self) -> Run:
        """A run without a model, which has all that results are built from."""
        specs = {label: ComponentSpec(name=label) for label in self.importance}
        selection = SimpleNamespace(
            specs=specs,
            spec_of=specs.get,
            blind=self.blind,
            baselines=self.baselines,
            left_out=self.left_out,
            failed=self.failed,
        )
        run = SimpleNamespace(
            resolved=self.recipe,
            recipe=make_recipe(self.recipe.model_dump(mode="json") | self.settled),
            loaded=SimpleNamespace(stack=range(self.num_blocks)),
            size=self.sizes.get("original"),
            drawn=None if self.calibration is None else SimpleNamespace(description=self.calibration),
            selection=selection,
            evaluation=SimpleNamespace(failed={}),
            evaluators={},
            loader=self.loader,
        )
        return cast(Run, run)

    @property
    def models(self) -> dict[str, CutModel]:
        """The pruned models, without weights."""
        contenders = {label: Contender(*label.split("+")) for label in (*self.plans, *self.healed)}
        return {
            label: CutModel(
                contender,
                self.plans.get(label) or self.plans[contender.scorer],
                cast(Size, self.sizes.get(label)),
                cast(Any, None),
                healing=self.healed.get(label),
                reached=self.reached.get(contender.scorer, ()),
                metrics=self.metrics.get(label, ()),
                footprint=self.footprint.get(label, ()),
                fidelity=self.fidelity.get(label),
                checkpoint=self.checkpoints.get(label),
            )
            for label, contender in contenders.items()
        }

    def results(self) -> Results:
        """The results."""
        return results_of(
            self.run,
            StageResults(
                self.importance,
                self.models,
                self.metrics.get("original", ()),
                self.footprint.get("original", ()),
                search=self.search,
            ),
        )

    def write(self, directory: Path) -> None:
        """Write what a run writes, without checkpoints and page."""
        write_output(self.results(), recorded(self.run), directory)


def report(**recipe: Any) -> MadeUpRun:
    """A complete run, which removed 2 of 4 blocks."""
    made = MadeUpRun(make_recipe({"model": "dir/tiny", "output": "out", **recipe}), 4, "AutoModelForCausalLM")
    made.calibration = Calibration(source="text.jsonl", rows=3, tokens=24, fingerprint="abc")
    made.sizes = {
        "original": Size(blocks=4, parameters=1000, bytes=4000),
        "paper": Size(blocks=2, parameters=600, bytes=2400),
    }
    made.importance = {"paper": Importance([0.1, 0.4, 0.2, 0.3], columns={"std": [1.0, 2.0, 3.0, 4.0]}, notes=["n"])}
    made.plans = {"paper": PrunePlan(num_blocks=4, blocks=[2, 0], scorer="avss", pruner="lowest", reason="why")}
    made.metrics = {"original": [acc(0.8, 0.01), ppl(20.0)], "paper": [acc(0.6, 0.02), ppl(40.0)]}
    made.footprint = {
        "original": [Metric("model", "bytes", 4000, higher_is_better=False)],
        "paper": [Metric("model", "bytes", 2400, higher_is_better=False)],
    }
    made.checkpoints = {"paper": Path("checkpoints/paper")}
    return made


def model_of(made: MadeUpRun) -> ModelResults:
    """The results for the model of a run."""
    return made.results().model


def strict(document: Any) -> Any:
    """Round trip through JSON that allows no NaN and no infinity."""
    return json.loads(json.dumps(document, allow_nan=False))


def without_two_blocks() -> MadeUpRun:
    """A run with 6 blocks, which removed two."""
    made = report(limit=20)
    made.num_blocks = 6
    made.sizes = {
        "original": Size(blocks=6, parameters=1200, bytes=4800),
        "paper": Size(blocks=4, parameters=800, bytes=3200),
    }
    made.importance = {"paper": Importance([0.6, 0.1, 0.2, 0.3, 0.4, 0.5])}
    made.plans = {"paper": PrunePlan(num_blocks=6, blocks=[1, 5], scorer="avss", pruner="lowest")}
    return made
