"""The lines on a smaller model."""

from __future__ import annotations

import math

import pytest
from support.reports import repaired

from layerimp.defaults import POOR
from layerimp.evaluator import Metric, Stratum
from layerimp.fidelity import Copying, Fidelity, Generation, Spread, WithImages
from layerimp.pipeline.shrunk import _training_text, judged
from layerimp.pruner import PrunePlan
from layerimp.report.results.measures import Retained, Share
from layerimp.report.results.shrunk import HealingStage, ShrinkReport, TaskRetained, TrainingText
from layerimp.report.statistics import measured
from layerimp.report.tables.fidelity_figures import FIGURES
from layerimp.report.tables.shrunk import _done, _outcome, _retained, _times


def generation(loops: float) -> Generation:
    return Generation(
        same_tokens=1.0, empty=0.0, loops=loops, prompts=24, intact_empty=0.0, intact_loops=0.25, samples=[]
    )


def seen(divergence: float, agreement: float) -> WithImages:
    spread = Spread(mean=divergence, stderr=0.2, median=1.0, p90=1.0, p99=1.0, max=1.0)
    return WithImages(rows=4, divergence=spread, agreement=agreement, agreement_stderr=0.1)


def retained(mean: float) -> Retained:
    share = Share(mean=mean, stderr=0.1)
    return Retained(tasks={"mood": share}, likelihood=None, accuracy=share, worst=share)


@pytest.mark.parametrize(
    ("fidelity", "kept", "why"),
    [
        (Fidelity(agreement=POOR["agreement"]), None, ""),
        (Fidelity(agreement=POOR["agreement"] - 0.01), None, "59% of its top choices"),
        (Fidelity(copying=Copying(accuracy=0.61, intact=0.8, divergence=1.0, agreement=0.5)), None, ""),
        (Fidelity(copying=Copying(accuracy=0.59, intact=0.8, divergence=1.0, agreement=0.5)), None, "it copies 59%"),
        (Fidelity(copying=Copying(accuracy=0.01, intact=0.1, divergence=1.0, agreement=0.5)), None, ""),
        (Fidelity(agreement=0.8, agreement_floor=0.6), None, ""),
        (
            Fidelity(agreement=0.79, agreement_floor=0.6),
            None,
            "79% of its labels are the intact model's, and 60% would",
        ),
        (Fidelity(generation=generation(0.49)), None, ""),
        (Fidelity(generation=generation(0.5)), None, "50% end in a loop"),
        (Fidelity(with_images=seen(0.99, 0.6)), None, ""),
        (Fidelity(with_images=seen(1.01, 0.6)), None, "with images its predictions are 1.01 nats"),
        (Fidelity(with_images=seen(0.99, 0.59)), None, "with images 59% of its top choices"),
        (None, retained(0.49), "it retains 49%"),
        (Fidelity(agreement=0.9), retained(0.5), ""),
    ],
)
def test_a_model_beyond_a_limit_is_poor(fidelity: Fidelity | None, kept: Retained | None, why: str) -> None:
    verdict, reasons = judged(fidelity, kept)
    assert verdict == ("poor" if why else "good")
    assert len(reasons) == bool(why)
    assert all(why in reason for reason in reasons)


def test_what_nothing_measured_has_no_verdict() -> None:
    assert judged(None, None) == ("not measured", [])


def test_the_error_of_loops_is_that_of_a_share() -> None:
    fidelity = Fidelity(agreement=0.5, agreement_stderr=0.03, generation=generation(0.25))
    errors = {name: figure.stderr(fidelity) for name, figure in FIGURES.items()}
    assert errors.pop("loops") == pytest.approx(math.sqrt(0.25 * 0.75 / 24))
    assert errors.pop("agreement") == 0.03
    assert set(errors.values()) == {None}
    fidelity = Fidelity(with_images=seen(1.0, 0.5))
    assert [FIGURES[f"{name} with images"].stderr(fidelity) for name in ("divergence", "agreement")] == [0.2, 0.1]


def test_an_average_says_which_of_its_tasks_do_not_count() -> None:
    strata = (Stratum(4, 0.5, "knows", 0.25), Stratum(4, 0.5, "guesses", 0.5))
    whole = measured(Metric("both", "accuracy", 0.75, 0.1, documents=(1.0,) * 6 + (0.0,) * 2, strata=strata))
    task = TaskRetained(task="both", metric="accuracy", intact=whole, small=whole, retained=Share(mean=1.0, stderr=0.1))
    row, left_out = _retained(ShrinkReport.model_construct(fidelity=None, tasks=[task]))
    assert row.startswith("both")
    assert left_out == "(left: without guesses, where the intact model is at chance)"


@pytest.mark.parametrize(("blocks", "named"), [((3,), "block 3"), ((3, 4, 6), "blocks 3-4, 6")])
def test_what_is_removed_is_counted(blocks: tuple[int, ...], named: str) -> None:
    report = ShrinkReport.model_construct(plan=PrunePlan(num_blocks=12, blocks=list(blocks)), stages=[])
    assert list(_done(report)) == [f"removed: {named}"]


def test_a_stage_says_what_it_was_kept_by() -> None:
    distance = {"divergence_before": 0.31, "repeated_before": 1.0, "divergence_after": 0.12, "repeated_after": 0.25}
    healing = repaired({}).model_copy(update={"distance": distance})
    stage = HealingStage(label="linear", healer="linear", kept=True, why="", healing=healing, minutes=1.0)
    assert _outcome(stage) == "kept; divergence 0.31 to 0.12, on repeated rows 1 to 0.25"


def test_only_kept_stages_have_trained_on_text() -> None:
    """Each stage reads the text from its beginning, so that the longest reading holds the others."""

    def stage(rows: int, *, kept: bool) -> HealingStage:
        text = TrainingText(source="more.jsonl", licence="", rows=rows, hash=f"{rows}")
        return HealingStage(label="d", healer="d", kept=kept, why="", healing=None, minutes=1.0, text=text)

    kept = stage(2, kept=True)
    assert _training_text([stage(1, kept=True), kept, stage(3, kept=False)]) == kept.text
    assert _training_text([stage(3, kept=False)]) is None


def test_short_times_are_in_seconds() -> None:
    assert _times({"choose": 0.03, "distill": 0.5}) == "32 seconds (choose 2, distill 30)"
    assert _times({"choose": 0.51, "distill": 30.0}) == "30.5 minutes (choose 0.5, distill 30.0)"
