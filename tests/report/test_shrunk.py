"""The lines on a smaller model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.cells import cell_len
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from support.recipes import make_recipe
from support.reports import repaired

from layerimp.defaults import POOR
from layerimp.evaluator import Metric, Stratum
from layerimp.fidelity import Copying, Fidelity, Generation, Sample, Spread
from layerimp.pipeline.run import CutModel
from layerimp.pipeline.shrink import _with_stages
from layerimp.pipeline.shrunk import _advice
from layerimp.pruner import PrunePlan
from layerimp.report.results.contenders import Contender
from layerimp.report.results.measures import Retained, Share
from layerimp.report.results.models import ReachedTarget, Size, Target, TrainingText
from layerimp.report.results.shrunk import BothSpeeds, HealingStage, ShrinkReport, TaskRetained
from layerimp.report.statistics import measured
from layerimp.report.tables.fidelity_figures import FIGURES
from layerimp.report.tables.shrunk import LINES, WIDTH, _done, _outcome, _row, _task, _texts, _times, lines_of
from layerimp.report.verdict import judged

if TYPE_CHECKING:
    from layerimp.pipeline.run import Run


def generation(loops: float) -> Generation:
    return Generation(
        same_tokens=1.0, empty=0.0, loops=loops, prompts=24, intact_empty=0.0, intact_loops=0.25, samples=[]
    )


def spread(mean: float) -> Spread:
    return Spread(mean=mean, stderr=0.2, median=1.0, p90=1.0, p99=1.0, max=1.0)


def retained(mean: float) -> Retained:
    share = Share(mean=mean, stderr=0.1)
    return Retained(tasks={"mood": share}, likelihood=None, accuracy=share, worst=share)


@pytest.mark.parametrize(
    ("fidelity", "kept", "why"),
    [
        (Fidelity(agreement=POOR["agreement"]), None, ""),
        (Fidelity(divergence=spread(0.99)), None, ""),
        (Fidelity(divergence=spread(1.01)), None, "its predictions are 1.010 nats from the intact model's, above 1"),
        (Fidelity(agreement=0.598), None, "59.8% of its top choices are the intact model's, below 60%"),
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
        (None, retained(0.498), "it retains 49.8% of what the intact model knows in the tasks, below 50%"),
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


@pytest.mark.parametrize("looping", [0, 6, 24])
def test_the_error_of_loops_is_that_of_a_share_and_never_0(looping: int) -> None:
    fidelity = Fidelity(agreement=0.5, agreement_stderr=0.03, generation=generation(looping / 24))
    errors = {name: figure.stderr(fidelity) for name, figure in FIGURES.items()}
    low, high = proportion_confint(looping, 24, alpha=2 * stats.norm.sf(2), method="agresti_coull")
    end, centre = high if looping < 24 else low, (looping + 2) / 28
    assert errors.pop("loops") == pytest.approx(abs(end - centre) / 2)
    assert errors.pop("agreement") == 0.03
    assert set(errors.values()) == {None}


def test_an_average_says_which_of_its_tasks_do_not_count() -> None:
    strata = (Stratum(4, 0.5, "knows", 0.25), Stratum(4, 0.5, "guesses", 0.5))
    whole = measured(Metric("both", "accuracy", 0.75, 0.1, documents=(1.0,) * 6 + (0.0,) * 2, strata=strata))
    task = TaskRetained(task="both", metric="accuracy", intact=whole, small=whole, retained=Share(mean=1.0, stderr=0.1))
    row, left_out = _task(task)
    assert row.startswith("both")
    assert left_out == "(left: without guesses, where the intact model is at chance)"


@pytest.mark.parametrize(("blocks", "named"), [((3,), "block 3"), ((3, 4, 6), "blocks 3-4, 6")])
def test_what_is_removed_is_counted(blocks: tuple[int, ...], named: str) -> None:
    plan = PrunePlan(num_blocks=12, blocks=list(blocks))
    report = ShrinkReport.model_construct(plan=plan, stages=[], tasks=[], failures={})
    assert list(_done(report, 2)) == [f"removed: {named}"]


def test_a_stage_says_what_it_was_kept_by() -> None:
    distance = {"divergence_before": 0.31, "repeated_before": 1.0, "divergence_after": 0.12, "repeated_after": 0.25}
    healing = repaired({}).model_copy(update={"distance": distance})
    stage = HealingStage(label="linear", healer="linear", kept=True, why="", healing=healing, minutes=1.0)
    assert _outcome(stage) == "kept; divergence 0.31 to 0.12, on repeated rows 1 to 0.25"
    other = stage.model_copy(update={"why": "no single linear map ends the MLP"})
    assert _outcome(other) == f"{_outcome(stage)}; no single linear map ends the MLP"


def test_only_kept_stages_have_trained_on_text() -> None:
    """Each stage reads the text from its beginning, so that the longest reading holds the others."""

    def stage(rows: int) -> HealingStage:
        text = TrainingText(source="more.jsonl", licence="", rows=rows, hash=f"{rows}") if rows else None
        healing = repaired({}).model_copy(update={"training_text": text})
        return HealingStage(label="d", healer="d", kept=True, why="", healing=healing, minutes=1.0)

    def read(*stages: HealingStage) -> TrainingText | None:
        size = Size(blocks=3, parameters=1, bytes=1)
        unknown: Any = None
        model = CutModel(Contender("s"), PrunePlan(num_blocks=4, blocks=[3]), size, unknown)
        healing = _with_stages(model, stages).healing
        return healing.training_text if healing else None

    longest = stage(2)
    assert longest.healing is not None
    assert read(stage(1), longest, stage(0)) == longest.healing.training_text
    assert read(stage(0)) is None
    assert read(longest.model_copy(update={"kept": False})) is None


def test_the_longest_report_fits_a_screen() -> None:
    copying = Copying(accuracy=0.4, intact=0.96, divergence=1.0, agreement=0.5)
    fidelity = Fidelity(divergence=spread(1.34), agreement=0.3, copying=copying)
    texts = [Sample(prompt="p" * 99, chat=False, intact="\N{CJK UNIFIED IDEOGRAPH-4E00}" * 99, text="t" * 99)] * 2
    written = generation(0.9).model_copy(update={"samples": texts})
    fidelity = fidelity.model_copy(update={"generation": written})
    _, reasons = judged(fidelity, retained(0.4))
    strata = tuple(Stratum(4, 0.5, f"a part with a long name {number}", 0.5) for number in range(8))
    value = measured(Metric("t", "accuracy", 0.5, 0.1, documents=(1.0, 0.0) * 16, strata=strata))
    share = Share(mean=-0.123, stderr=0.121)
    tasks = [
        TaskRetained(task=f"task {number}", metric="accuracy", intact=value, small=value, retained=share)
        for number in range(9)
    ]
    why = "linear was taken back: " + "the divergence went from 0.310 to 0.320 nats " * 5
    stages = [
        HealingStage(label=label, healer="linear", kept=False, why=why, healing=repaired({}), minutes=31.7)
        for label in ("linear", "rescale", "distill")
    ]
    size = Size(blocks=126, parameters=405_853_069_312, bytes=811_706_138_624)
    speed = BothSpeeds(
        tokens=64,
        intact=531.4,
        intact_stderr=1.5,
        small=658.4,
        small_stderr=9.8,
        factor=1.24,
        factor_stderr=0.017,
    )
    report = ShrinkReport.model_construct(
        recipe={"keep": 0.5, "keep_of": "quality"},
        verdict="poor",
        reasons=reasons,
        advice=["a smaller cut (--count 2 in place of --target)", "more training (--minutes 60)", "text of your own"],
        model="a-model-with-a-long-name-of-a-researcher",
        loader="AutoModelForCausalLM",
        output="small",
        intact=size,
        small=size,
        cache={"intact": 516_096.0, "small": 258_048.0},
        targets={},
        reached={},
        speeds={"prefill": speed, "decoding": speed},
        plan=PrunePlan(num_blocks=126, blocks=list(range(0, 126, 2)), scorer="divergence", pruner="greedy"),
        stages=stages,
        tasks=tasks,
        fidelity=fidelity,
        failures={},
        samples=[],
        minutes={"choose": 90.5, "linear": 30.4, "distill": 310.7, "measure": 150.0, "write": 10.1},
        memory={"cpu": 2**36, "cuda": 2**36},
    )
    quantities = {"parameters": 405_853_069_312.0, "bytes": 811_706_138_624.0, "kv-cache": 516_096.0}
    many = {
        "targets": {
            name: Target(asked="0.75", factor=True, unit="parameters", limit=limit, original=limit)
            for name, limit in quantities.items()
        },
        "reached": {name: ReachedTarget(value=limit, one_less=limit) for name, limit in quantities.items()},
    }
    many["failures"] = {"harness": "the evaluator 'harness' failed on divergence+distill: " + "a long reason " * 9}
    full = lines_of(report.model_copy(update=many))
    assert len(full) <= LINES
    assert max(map(len, full)) <= WIDTH
    assert sum(line.startswith("target ") for line in full) == 3
    assert [line.partition(":")[0] for line in full if ": failed: " in line] == ["harness"]
    assert any(line.startswith("what would help") for line in full)
    lines = lines_of(report)
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= WIDTH
    assert not [line for line in lines if line.startswith("prompt")], "there is no room for a whole text"
    (counted,) = (line for line in lines if line.endswith("tasks more (see the report)"))
    shown = sum(line.startswith("task ") for line in lines)
    assert shown == 9 - int(counted.split()[1])


def test_texts_are_whole_and_as_wide_as_the_screen() -> None:
    """Signs that take two columns count as two."""
    sample = Sample(prompt="p" * 99, chat=True, intact="\N{CJK UNIFIED IDEOGRAPH-4E00}" * 99, text="")
    fidelity = Fidelity(generation=generation(0.5).model_copy(update={"samples": [sample]}))
    empty, *lines = _texts(ShrinkReport.model_construct(fidelity=fidelity))
    assert empty == ""
    assert [line.partition(":")[0] for line in lines] == ["message", "intact", "small"]
    assert [cell_len(line) for line in lines[:2]] == [WIDTH, WIDTH - 1]
    assert lines[2] == "small: (nothing)"


def test_wide_figures_take_room_from_the_name() -> None:
    row = _row("zero-shot", "1.235e+08 ± 1.2e+08", "1.235e+08 ± 1.2e+08", "-12.3% ± 12.1% left")
    assert len(row) <= WIDTH
    assert row.split() == "zero-shot 1.235e+08 ± 1.2e+08 1.235e+08 ± 1.2e+08 -12.3% ± 12.1% left".split()


@pytest.mark.parametrize(
    ("fields", "took", "advised"),
    [
        ({}, 1.9, ["a smaller cut (--count 2)", "more training (--minutes 4)", "text of your own (--heal-text)"]),
        (
            {"ratio": 0.5, "heal_text": "more.jsonl"},
            30.4,
            ["a smaller cut (--count 2 in place of --ratio)", "more training (--minutes 60)"],
        ),
    ],
)
def test_more_training_is_twice_what_the_training_took(fields: dict[str, Any], took: float, advised: list[str]) -> None:
    """The training of a token limit may end long before its minutes."""
    recipe = make_recipe({"model": "m", "healers": {"distill": {"options": {"minutes": 30}}}, **fields})
    stage = HealingStage(label="distill", healer="distill", kept=True, why="", healing=None, minutes=took)
    run = cast("Run", SimpleNamespace(resolved=recipe))
    assert list(_advice(run, [1, 2, 3, 4], [stage])) == advised


def test_short_times_are_in_seconds() -> None:
    assert _times({"choose": 0.03, "distill": 0.5}) == "32 seconds (choose 2, distill 30)"
    assert _times({"choose": 0.51, "distill": 30.0}) == "30.5 minutes (choose 0.5, distill 30.0)"
