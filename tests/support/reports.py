"""Made-up reports of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from layerimp.evaluator import Metric
from layerimp.pruner import PrunePlan
from layerimp.recipe import make_recipe
from layerimp.report import Report
from layerimp.report.checkpoint import Checkpoint
from layerimp.report.results.comparison import ModelResults
from layerimp.report.results.models import Size
from layerimp.scorer import Importance


def acc(value: float, stderr: float | None = None, task: str = "sst2") -> Metric:
    return Metric(task, "acc", value, stderr)


def ppl(value: float, task: str = "wikitext") -> Metric:
    return Metric(task, "word_perplexity", value, higher_is_better=False)


def report(**recipe: Any) -> Report:
    """A complete run, which removed 2 of 4 blocks."""
    made = Report(make_recipe({"model": "dir/tiny", **recipe}), num_blocks=4, loader="AutoModelForCausalLM")
    made.calibration = {"source": "text.jsonl", "rows": 3, "tokens": 24, "fingerprint": "abc"}
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
    made.checkpoints = {"paper": Path("out/checkpoints/paper")}
    made.output = Path("out")
    return made


def checkpoint_of(made: Report, label: str) -> Checkpoint:
    """A checkpoint of a run, as its card describes it."""
    healing = made.healed.get(label)
    return Checkpoint(
        label,
        made.recipe,
        made.loader,
        made.plan_of(label),
        intact=made.sizes["original"],
        size=made.sizes[label],
        standing=made.standing(label),
        healing=healing,
        calibration=made.calibration,
        before=made.metrics.get("original", ()),
        after=made.metrics.get(label, ()),
        scored=bool(made.importance),
    )


def model_of(made: Report) -> ModelResults:
    """The results for the model of a run."""
    (model,) = made.results().models.values()
    return model


def strict(document: Any) -> Any:
    """Round trip through JSON that allows no NaN and no infinity."""
    return json.loads(json.dumps(document, allow_nan=False))


def with_a_seam() -> Report:
    """A run with 6 blocks, which removed a block and a seam."""
    made = report(limit=20)
    made.num_blocks = 6
    made.sizes = {
        "original": Size(blocks=6, parameters=1200, bytes=4800),
        "paper": Size(blocks=4, parameters=800, bytes=3200),
    }
    made.importance = {"paper": Importance([0.6, 0.1, 0.2, 0.3, 0.4, 0.5])}
    made.plans = {"paper": PrunePlan(num_blocks=6, blocks=["1/2", 5], scorer="avss", pruner="lowest")}
    return made
