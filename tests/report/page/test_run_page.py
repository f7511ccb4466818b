"""The page of a run: it shows the run's numbers, and says what a single scoring cannot show."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.recipes import make_recipe
from support.reports import MadeUpRun, measured, repaired

from layerimp.calibration.sampling import Calibration
from layerimp.evaluator import Metric
from layerimp.pruner import PrunePlan
from layerimp.recipe.plans import read_plans
from layerimp.report.document import Results
from layerimp.report.page import page
from layerimp.report.page.charts import Charts, Contrast, contrast_of
from layerimp.report.results.measures import Difference
from layerimp.report.results.models import Size
from layerimp.report.results.search import MostBlocks, QualitySearch
from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.statistics import measured as measured_as
from layerimp.report.tables import quality
from layerimp.scorer import Importance
from layerimp.sizes.targets import Reached, read_targets

BLOCKS = 6
PLANS: dict[str, list[int]] = {"avss": [2, 3], "gbis": [4, 1], "random": [1, 5], "depth": [4, 3]}


def plan(blocks: Sequence[int]) -> PrunePlan:
    return PrunePlan(num_blocks=BLOCKS, blocks=list(blocks), scorer="avss", pruner="lowest", reason="why")


def report(**recipe: Any) -> MadeUpRun:
    asked = {} if recipe.keys() & {"targets", "keep"} else {"count": 2}
    recipe = {"model": "/home/ann/tiny", "scorers": ["avss", "gbis"], **asked, **recipe}
    made = MadeUpRun(make_recipe(recipe), BLOCKS, "AutoModel")
    made.calibration = Calibration(source="/home/ann/text.jsonl", rows=3, tokens=24, fingerprint="abc")
    settled = {"source": "/home/ann/text.jsonl", "max_length": 8, "packing": "windows"}
    made.settled = {"dtype": "bfloat16", "calibration": settled}
    made.importance = {label: Importance([float(7 * n % 5) for n in range(BLOCKS)]) for label in PLANS}
    made.plans = {label: plan(blocks) for label, blocks in PLANS.items()}
    made.sizes = {"original": Size(blocks=6, parameters=1000, bytes=4000)} | {
        label: Size(blocks=6 - len(blocks), parameters=1000 - 100 * len(blocks), bytes=2400)
        for label, blocks in PLANS.items()
    }
    made.metrics = {"original": measured(190), "avss": measured(180)}
    made.metrics |= {"gbis": measured(150), "random": measured(120), "depth": measured(110)}
    made.baselines = ["random", "depth"]
    return made


def shrunk(made: MadeUpRun) -> ShrinkReport:
    """What `shrink` would report of the healed model."""
    assert made.calibration is not None
    return ShrinkReport(
        verdict="poor",
        reasons=["what is in /home/ann/a.jsonl"],
        advice=["more"],
        model="/home/ann/tiny",
        loader="AutoModel",
        output="/home/ann/small",
        intact=made.sizes["original"],
        small=made.sizes["avss+linear"],
        cache={},
        targets={},
        reached={},
        speeds={},
        plan=made.plans["avss+linear"],
        stages=[],
        tasks=[],
        retained=None,
        fidelity=None,
        samples=[],
        calibration=made.calibration,
        training_text=None,
        minutes={"choose": 1.0},
        memory={"cpu": 2**30},
        recipe={},
    )


def only(made: MadeUpRun, *labels: str) -> MadeUpRun:
    """The report of the same run without the other scorers."""
    for results in (made.importance, made.plans, made.sizes, made.metrics):
        for label in set(results) - {"original", *labels}:
            del results[label]  # type: ignore[attr-defined]
    made.baselines = [label for label in made.baselines if label in labels]
    return made


def most_blocks(count: int) -> MostBlocks:
    """So many blocks may be removed."""
    blocks: list[int] = list(range(count))
    return MostBlocks(count=count, blocks=blocks, retained=None, confirmed=None, before_confirmation=count, tried=[])


def findings(made: MadeUpRun) -> Results:
    made.blind = ["random", "depth"]
    return made.results()


def words(results: Results, shrunk: ShrinkReport | None = None) -> str:
    text = re.sub(r"<style.*?</style>|<[^>]*>", " ", page(results, shrunk), flags=re.S)
    return " ".join(html.unescape(text).split())


def test_the_page_says_what_the_run_found() -> None:
    made = report()
    results = findings(made)
    (model,) = results.models.values()
    (row,) = model.headlines
    assert row.amount == 2
    assert {label: entry.value.mean for label, entry in row.entries.items()} == {
        removal.label: pytest.approx(removal.retained.worst.mean)
        for removal in model.removals
        if removal.retained and removal.retained.worst
    }
    said = words(results)
    assert "avss retains most at 2 blocks. That is significantly better than all others." in said
    assert "Calibration: 3 rows of text.jsonl, 8 tokens each" in said
    assert "tiny, bfloat16" in said
    assert "2 blocks 20.0% of parameters avss retains" in said, "the share of the parameters stands beside"
    assert re.search(r"Removed 2 blocks \(20\.0% of parameters\)", said)
    assert "ann" not in re.findall(r"\w+", said)
    for single in ("at least two repeats are needed", "they were not timed", "Each scorer scores once"):
        assert single in said
    for repeated in ("over the repeats", "repeat with", "of repeats", "cells"):
        assert repeated not in said


def test_only_what_lacks_as_many_blocks_is_compared() -> None:
    made = report(targets={"parameters": 850})
    made.plans["avss"] = plan([2])
    made.sizes["avss"] = Size(blocks=5, parameters=900, bytes=3000)
    results = findings(made)
    (model,) = results.models.values()
    assert {(row.amount, *row.counts): set(row.entries) for row in model.headlines} == {
        ("parameters=850", 1): {"avss"},
        ("parameters=850", 2): {"gbis", "random", "depth"},
    }
    said = words(results)
    assert "gbis retains most at parameters=850 (2 blocks)" in said
    assert "models that lack different numbers of blocks are not compared with each other" in said
    apart = {label: plan(range(n)) for n, label in enumerate(PLANS, 1)}
    sizes = made.sizes | {
        label: Size(blocks=6 - n, parameters=1000 - n, bytes=2400) for n, label in enumerate(PLANS, 1)
    }
    assert "Nothing can be compared" in words(findings(replace(made, plans=apart, sizes=sizes)))


def test_a_baseline_that_leads_is_called_one() -> None:
    made = report()
    made.metrics["random"] = measured(189)
    assert "random retains most at 2 blocks. A baseline leads: no other scorer retains more." in words(findings(made))


def test_healed_models_stand_beside_the_others() -> None:
    made = report(healers=["linear"])
    for label in PLANS:
        made.healed[f"{label}+linear"] = repaired({"intact": 1.0}, 0.5)
        made.sizes[f"{label}+linear"] = made.sizes[label]
        made.metrics[f"{label}+linear"] = measured(185)
    said = words(findings(made))
    assert "avss+linear 50.0%" in said
    assert "Recovered is the share of the lost loss that came back on held-out text" in said


def test_a_run_with_one_scorer_shows_what_is_left() -> None:
    said = words(findings(only(report(), "avss")))
    assert "What is tiny worth with fewer blocks? avss rates the blocks of tiny." in said
    assert "88.9% of what tiny knows is retained without 2 blocks." in said
    assert "2 blocks 20.0% of parameters avss retains 88.9% ± 7.5% removed: 2-3" in said
    for compared in ("Which scorer", "random", "baseline", "significant", "leader", "Rank agreement", "Differences"):
        assert compared not in said
    beside = words(findings(only(report(), "avss", "random", "depth")))
    assert "avss rates the blocks of tiny, and random and depth choose some to compare with." in beside
    assert "removed: 2-3 Significantly better than random (" in beside


@pytest.mark.parametrize(
    ("asked", "said", "removed"),
    [
        ({"targets": {"parameters": "850"}}, "at parameters=850", "parameters=850"),
        ({"targets": {"bytes": "3.4KB"}}, "at bytes=3.4KB", "bytes=3.4KB"),
        ({"count": None, "blocks": "2-3"}, "without blocks 2, 3", "blocks 2, 3"),
        ({"count": None}, "without the blocks of the plan", "blocks of the plan"),
    ],
)
def test_what_was_asked_for_reads_well(asked: dict[str, Any], said: str, removed: str) -> None:
    text = words(findings(only(report(**asked), "avss")))
    assert f"88.9% of what tiny knows is retained {said}. {removed} 20.0% of parameters" in text
    assert f"Removed {removed} (20.0% of parameters)" in text


@pytest.mark.parametrize("healers", [[], ["linear"]])
def test_what_named_blocks_leave_stands_in_the_table_of_quality(healers: list[str]) -> None:
    """No scorer chose them, so the design names no contender."""
    made = only(report(count=None, blocks="2-3", healers=healers))
    made.plans["blocks"], made.sizes["blocks"] = plan([2, 3]), Size(blocks=4, parameters=800, bytes=2400)
    made.metrics["blocks"] = measured(180)
    for healer in healers:
        label = f"blocks+{healer}"
        made.healed[label], made.sizes[label] = repaired({"intact": 1.0}, 0.5), made.sizes["blocks"]
        made.metrics[label] = measured(185)
    results = findings(made)
    assert not results.design.scorers
    (table,) = quality(results)
    assert table.heads[2:] == ["original", "blocks", "blocks+linear" if healers else "retained"]
    assert "removed: 2-3" in words(results)


def test_of_a_search_each_model_is_shown_with_what_it_lacks(tmp_path: Path) -> None:
    """Healed models may lose more blocks than others."""
    made = only(report(keep=0.9, healers=["linear"]), "avss", "depth")
    made.plans["depth"] = plan([4])
    made.sizes["depth"] = Size(blocks=5, parameters=900, bytes=3000)
    label = "avss+linear"
    made.plans[label], made.healed[label] = plan([1, 2, 3]), repaired({"intact": 1.0}, 0.5)
    made.sizes[label] = Size(blocks=3, parameters=700, bytes=2000)
    made.metrics[label] = measured(185)
    results = findings(made)
    said = words(results)
    assert "healed by linear retains 94.4% ± 5.7% removed: 1-3" in said
    assert "keep=0.9: 1 to 3 blocks of 6" in said
    (chart,) = Charts(results.model).removed
    assert chart.under == {"avss": "2-3", label: "1-3", "depth": "4"}
    healed, beside = "depth+linear", Size(blocks=4, parameters=800, bytes=2400)
    made.plans[healed], made.healed[healed], made.sizes[healed] = plan([4, 5]), made.healed[label], beside
    made.write(tmp_path)
    assert list(read_plans(tmp_path / "plan.json")) == ["avss", "avss-linear"], "no plan of a baseline, healed or not"
    plans = results.model.plans
    assert {name: each.blocks for name, each in plans.items()} == {
        "avss": [2, 3],
        "avss-linear": [1, 2, 3],
        "depth": [4],
    }


def test_where_only_a_healed_model_is_left_its_blocks_are_shown() -> None:
    made = only(report(healers=["linear"]), "avss")
    made.healed["avss+linear"] = repaired({"intact": 1.0}, 0.5)
    made.sizes["avss+linear"], made.metrics["avss+linear"] = made.sizes.pop("avss"), made.metrics.pop("avss")
    made.plans["avss+linear"] = made.plans.pop("avss")
    results = findings(made)
    (chart,) = Charts(results.model).removed
    assert chart.under == {"avss+linear": "2-3"}
    said = words(results, shrunk(made))
    assert "layerimp shrink" in said
    assert "poor: tiny with 4 of 6 blocks left: 20.0% fewer parameters what is in a.jsonl what would help: more" in said
    assert "removed: blocks 2-3" in said
    assert "took 60 seconds" in said
    assert "/home" not in said
    assert "are removed, what is left is healed by linear, and the result is measured." in said


def test_the_only_scorer_is_shown_though_a_baseline_leads() -> None:
    made = only(report(), "avss", "random", "depth")
    made.metrics["random"] = measured(189)
    said = words(findings(made))
    assert "88.9% of what tiny knows is retained without 2 blocks." in said
    assert "Significantly worse than random (" in said
    assert "avss retains 88.9%" in said


def test_one_healed_scorer_stands_beside_what_it_was() -> None:
    made = only(report(healers=["linear"]), "avss")
    made.healed["avss+linear"] = repaired({"intact": 1.0}, 0.5)
    made.sizes["avss+linear"] = made.sizes["avss"]
    made.metrics["avss+linear"] = measured(185)
    said = words(findings(made))
    assert "88.9% , healed by linear 94.4% of what tiny knows is retained without 2 blocks." in said
    assert "healed by linear retains 94.4%" in said


def test_what_stands_alone_is_compared_with_nothing() -> None:
    made = report()
    made.plans |= {label: plan(range(n)) for n, label in enumerate(PLANS, 1)}
    made.sizes |= {label: Size(blocks=6 - n, parameters=1000 - n, bytes=2400) for n, label in enumerate(PLANS, 1)}
    said = words(findings(made))
    for compared in ("No scorer retains more", "is itself a baseline", "Significantly", "significant"):
        assert compared not in said


def test_a_search_leads_with_how_many_blocks_may_go() -> None:
    made = report(keep=0.9)
    order = ["avss", "gbis", "random", "depth"]
    made.search = QualitySearch(
        keep=0.9,
        measured_on=["mood"],
        held_out=False,
        order=order,
        removable={label: most_blocks(0 if label == "depth" else 2) for label in order},
    )
    del made.plans["depth"], made.metrics["depth"], made.sizes["depth"]
    said = words(findings(made))
    counts = "2 by avss, gbis, random; 0 by depth"
    assert f"Removable of 6 blocks, while at least 90% is retained: {counts}." in said
    assert "measured on the documents that confirm the result" in said
    assert "How many blocks can tiny lose?" in said


def test_what_was_asked_for_and_what_is_missing_is_told() -> None:
    made = report(targets={"parameters": 850}, blocks=[2])
    (target,) = read_targets({"parameters": 850})
    made.reached = {label: [Reached(target, 850.0, 1000.0, 800.0, 900.0)] for label in PLANS}
    made.left_out = {"lrp": "it does not fit"}
    made.failed = {"mine": "ValueError at /home/ann/mine.py"}
    said = words(findings(made))
    assert "removed on request, regardless of scores: block 2" in said
    least = "no more blocks are removed than necessary for"
    assert f"{least} parameters=850: at most 850 parameters; reached: avss 800" in said
    assert "the scorer lrp is left out: it does not fit" in said
    assert "This report is not complete." in said
    assert "mine ValueError at mine.py" in said


def test_a_run_that_measured_nothing_shows_what_it_scored_and_removed() -> None:
    made = report()
    made.metrics = {"original": []}
    said = words(findings(made))
    assert "The lowest-rated blocks are removed. Each scorer scores once." in said
    assert "Quality was not measured, so the scorers cannot be compared." in said
    assert "Importance of each block" in said
    assert "Removed blocks" in said
    assert "Evaluation: none" in said
    assert "Which blocks matter?" in said
    alone = only(report(), "avss")
    alone.metrics = {"original": []}
    assert "Quality was not measured. Importance" in words(findings(alone))


def test_where_nothing_can_be_retained_the_page_says_so() -> None:
    made = report()
    made.metrics = {label: measured(100) for label in made.metrics}
    said = words(findings(made))
    assert "Nothing can be retained: in no task is the intact model better than a model that knows nothing." in said
    assert "Quality of the pruned model" in said
    assert "was not measured" not in said


@pytest.mark.parametrize(("mean", "verdict"), [(-math.inf, "better"), (math.inf, "worse")])
def test_an_infinite_difference_can_be_significant(mean: float, verdict: str) -> None:
    """As in the table, where the model that is not broken is marked as the best."""
    perplexity = Metric("t", "ppl", 3.0, 0.1, False)
    (row,) = (each for each in next(iter(findings(report()).models.values())).rows if each.original is not None)
    lower = row.model_copy(update={"original": measured_as(perplexity), "higher_is_better": False})
    assert contrast_of(Difference(mean=mean, p=0.0), lower) == Contrast(f"{'−' if mean < 0 else '+'}∞", "", verdict)
    assert contrast_of(Difference(mean=mean), lower) == Contrast(f"{'−' if mean < 0 else '+'}∞", "", "unknown")
