"""`layerimp run --keep`: as many blocks are removed as the share to keep allows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.by_label import by_label, results_in
from support.fake_plugins import Install, Plug
from support.mood import Run
from support.recipes import make_recipe
from support.tiny import saved, tiny
from transformers import AutoModelForCausalLM, PreTrainedModel

import layerimp
from layerimp import Evaluator, Metric, PrunePlan, Pruner
from layerimp.calibration import load_calibration
from layerimp.errors import NonFiniteError, OutputError
from layerimp.pipeline import pruning
from layerimp.pipeline.document_halves import DocumentHalves, kept
from layerimp.pipeline.prepare import prepare
from layerimp.pipeline.pruning import prune_by_amount
from layerimp.pipeline.run import Run as Started
from layerimp.progress import SILENT
from layerimp.recipe import Permissions
from layerimp.recipe.plans import PlanFile
from layerimp.report.document import Results

BLOCKS = 9
HALF = 20
"""Documents in each half: the even ones search, the odd ones confirm."""


class Curve(Evaluator):
    """A given accuracy: the number of correct documents in each half, by the number of removed blocks."""

    name = "curve"
    kind = "quality"
    right: Mapping[int, tuple[int, int]] = {}
    measured: list[int] = []  # noqa: RUF012

    def evaluate(self, model: PreTrainedModel, tokenizer: Any) -> list[Metric]:
        gone = BLOCKS - model.config.num_hidden_layers
        self.measured.append(gone)
        if gone not in self.right and gone:
            raise NonFiniteError("the logits hold a NaN")
        search, confirmation = self.right.get(gone, (HALF, HALF))
        documents = tuple(float(n // 2 < (confirmation if n % 2 else search)) for n in range(2 * HALF))
        share = sum(documents) / len(documents)
        return [Metric("curve", "acc", share, 0.01, floor=0.0, documents=documents, hashes=tuple(range(2 * HALF)))]


class Shifting(Pruner):
    """Takes different blocks for each number, so that no plan is the start of another."""

    name = "shifting"

    def plan(self, scoring: Any, budget: Any) -> PrunePlan:
        first = BLOCKS - 1 - budget.count
        return PrunePlan(num_blocks=budget.num_blocks, blocks=list(range(first, first + budget.count)))


@pytest.fixture(scope="module")
def nine_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny(num_hidden_layers=BLOCKS), tmp_path_factory.mktemp("model") / "nine")


@pytest.fixture(autouse=True)
def _plugged(install: Install, plugged: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    plugged(install("curve", layerimp_evaluators=lambda: [Curve], layerimp_pruners=lambda: [Shifting]))
    monkeypatch.setattr(Curve, "measured", [])


@pytest.fixture
def command(nine_blocks: Path, calibration_file: Path) -> tuple[Any, ...]:
    text = ("--calibration", calibration_file, "--samples", 16, "--max-length", 16)
    return ("run", "--model", nine_blocks, *text, "--scorer", "depth", "--no-baselines", "--evaluator", "curve")


def falling(*right: int, confirmed: tuple[int, ...] | None = None) -> dict[int, tuple[int, int]]:
    """The numbers of correct documents in the searching and in the confirming half, without 1, 2, ... blocks."""
    pairs = zip(right, confirmed or right, strict=True)
    return dict(enumerate(pairs, start=1))


def searched(layerimp_command: Run, *arguments: Any) -> dict[str, Any]:
    printed, _ = layerimp_command.done(*arguments, "--json")
    return by_label(printed)


def test_too_little_memory_is_told_before_the_search(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_model: object) -> None:
        raise OutputError("too little memory")

    monkeypatch.setattr(pruning, "check_memory", refuse)
    code, _, err = layerimp_command(*command, "--keep", 0.95, "--output", tmp_path / "out")
    assert (code, err.splitlines()[-1]) == (2, "layerimp: too little memory")
    assert not Curve.measured


CURVES = {
    "all fail": ((18, 17, 16, 15, 14, 13, 12, 11), 0),
    "one": ((19, 18, 17, 16, 15, 14, 13, 12), 1),
    "exactly 95 % is enough": ((20, 20, 19, 18, 17, 16, 15, 14), 3),
    "most": ((20, 20, 20, 20, 20, 20, 19, 0), 7),
    "all hold": ((20,) * 8, 8),
}


@pytest.mark.parametrize(("right", "count"), CURVES.values(), ids=CURVES)
def test_as_many_go_as_an_exhaustive_search_allows(
    right: tuple[int, ...], count: int, layerimp_command: Run, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curve, "right", falling(*right))
    report = searched(layerimp_command, *command, "--keep", 0.95)
    most = report["search"]["removable"]["depth"]
    assert most["count"] == most["before_confirmation"] == len(most["blocks"]) == count
    assert Curve.measured[0] == 0
    assert sorted(Curve.measured[1:]) == [trial["count"] for trial in most["tried"]]
    assert len(most["tried"]) <= 4  # of eight numbers
    if count:
        assert most["confirmed"]["mean"] == pytest.approx(right[count - 1] / HALF)
        assert report["parameters"]["pruned"].keys() == {"depth"}
    else:
        assert most["retained"] is most["confirmed"] is None


def test_what_was_found_is_written_and_measured_on_the_documents_that_confirm(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(Curve, "right", falling(20, 19, 16, 15, 14, 13, 12, 11, confirmed=(20, 20, 20, *[9] * 5)))
    report = searched(layerimp_command, *command, "--keep", 0.9, "--output", out)
    most = report["search"]["removable"]["depth"]
    assert most["count"] == 2
    assert most["retained"]["mean"] == pytest.approx(0.95)
    assert report["metrics"]["depth"]["curve"]["acc"]["value"] == 1.0
    assert report["metrics"]["depth"]["curve"]["acc"]["documents"] == HALF
    assert report["retained_worst"]["depth"] == 1.0
    model = AutoModelForCausalLM.from_pretrained(out / "checkpoints" / "depth")
    assert model.config.num_hidden_layers == BLOCKS - 2
    plan = json.loads((out / "plan.json").read_text())["plans"]["depth"]
    assert plan["blocks"] == report["scorers"]["depth"]["removed"] == most["blocks"]
    assert json.loads((out / "recipe.json").read_text())["keep"] == 0.9
    assert results_in(out)["search"] == report["search"]


def test_it_steps_down_where_other_documents_do_not_confirm(
    layerimp_command: Run, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches, confirms = (20, 20, 20, 20, 20, 12, 11, 10), (20, 20, 20, 18, 18, 12, 11, 10)
    monkeypatch.setattr(Curve, "right", falling(*searches, confirmed=confirms))
    most = searched(layerimp_command, *command, "--keep", 0.95)["search"]["removable"]["depth"]
    assert (most["before_confirmation"], most["count"]) == (5, 3)
    assert most["confirmed"]["mean"] == 1.0
    assert len(Curve.measured) == len(set(Curve.measured))  # each once
    _, printed, _ = layerimp_command(*command, "--keep", 0.95)
    assert "depth: the search found 5, and the other half confirmed 3" in printed


def test_nothing_may_go(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curve, "right", falling(*(10,) * 8))
    out = tmp_path / "out"
    printed, _ = layerimp_command.done(*command, "--keep", 0.95, "--output", out)
    assert "depth: no block can be removed; 1 removed leaves 50.0%" in printed
    assert not (out / "checkpoints").exists()
    assert results_in(out)["search"]["removable"]["depth"]["count"] == 0


def test_plans_that_are_not_nested_are_tried_upwards(
    layerimp_command: Run, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curve, "right", falling(20, 20, 10, *[20] * 5))
    report = searched(layerimp_command, *command, "--keep", 0.95, "--pruner", "shifting")
    most = report["search"]["removable"]["depth"]
    assert [trial["count"] for trial in most["tried"]] == [1, 2, 3]
    assert most["count"] == 2
    assert most["blocks"] == [6, 7]


@pytest.mark.parametrize(
    ("pruner", "count"),
    [
        (("greedy", "--set", "greedy.protect_first=1", "--set", "greedy.protect_last=1"), BLOCKS - 2),
        (("window", "--protect", 5), 5),
    ],
    ids=["nested", "not nested"],
)
def test_a_pruner_without_a_plan_for_so_many_ends_the_search(
    layerimp_command: Run,
    command: tuple[Any, ...],
    pruner: tuple[Any, ...],
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Curve, "right", falling(*(20,) * 8))
    report = searched(layerimp_command, *command, "--keep", 0.95, "--pruner", *pruner)
    assert report["search"]["removable"]["depth"]["count"] == count


def test_baselines_without_a_plan_are_left_out_of_the_file() -> None:
    plan = PrunePlan(num_blocks=BLOCKS, blocks=[3])
    file = PlanFile.of({"avss": plan, "depth": plan}, ["random", "depth"])
    assert (file.plans.keys(), file.baselines.keys()) == ({"avss"}, {"depth"})
    assert PlanFile.of({"avss": plan}, ["random"]).model_dump(mode="json").keys() == {"schema_version", "plans"}


def test_equal_removals_are_measured_once(
    layerimp_command: Run, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curve, "right", falling(20, 20, 19, *[10] * 5))
    report = searched(layerimp_command, *command, "--scorer", "again=depth", "--keep", 0.95)
    removable = report["search"]["removable"]
    assert removable["again"] == removable["depth"]
    assert len(Curve.measured) == 1 + len(removable["depth"]["tried"])


def test_a_model_that_cannot_be_measured_keeps_nothing(
    layerimp_command: Run, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curve, "right", falling(20, 20))  # NaN without three or more
    printed, err = layerimp_command.done(*command, "--keep", 0.95, "--json")
    assert "depth keeps nothing without 4 blocks" in err
    assert by_label(printed)["search"]["removable"]["depth"]["count"] == 2


def test_forced_blocks_are_the_least_and_protected_ones_the_most(
    layerimp_command: Run, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curve, "right", falling(10, 10, *[20] * 6))
    protect = ("--protect", "0,1,2,3")
    five = searched(layerimp_command, *command, "--keep", 0.95, "--blocks", "4,5,6", *protect)["search"]["removable"]
    assert five["depth"]["count"] == 5
    assert {trial["count"] for trial in five["depth"]["tried"]} <= {3, 4, 5}
    assert set(five["depth"]["blocks"]) >= {4, 5, 6}
    monkeypatch.setattr(Curve, "right", falling(*(10,) * 8))
    none = searched(layerimp_command, *command, "--keep", 0.95, "--blocks", "4,5")["search"]["removable"]
    assert none["depth"]["count"] == 0
    assert none["depth"]["tried"][0]["count"] == 2


def test_each_healer_has_a_number_of_its_own(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Healed models are measured as separate models; here they keep more, according to another curve."""
    plain, healed = falling(20, *[10] * 7), falling(20, 20, 20, 19, *[10] * 4)
    original = Curve.evaluate

    def evaluate(self: Curve, model: PreTrainedModel, tokenizer: Any) -> list[Metric]:
        monkeypatch.setattr(Curve, "right", plain if model is models[0] else healed)
        return original(self, model, tokenizer)

    models: list[PreTrainedModel] = []

    def loaded(self: Curve, model: PreTrainedModel) -> None:
        models.append(model)

    monkeypatch.setattr(Curve, "check", loaded)
    monkeypatch.setattr(Curve, "evaluate", evaluate)
    out = tmp_path / "out"
    report = searched(layerimp_command, *command, "--keep", 0.95, "--heal", "rescale", "--output", out)
    removable = report["search"]["removable"]
    assert {label: most["count"] for label, most in removable.items()} == {"depth": 1, "depth+rescale": 4}
    assert report["search"]["order"] == report["order"] == ["depth+rescale", "depth"]
    # They are not compared on their documents, since one model lacks three blocks more.
    assert report["best"]["retained accuracy"] == report["best"]["curve acc"] == []
    for label, count in (("depth", 1), ("depth+rescale", 4)):
        model = AutoModelForCausalLM.from_pretrained(out / "checkpoints" / label)
        assert model.config.num_hidden_layers == BLOCKS - count
        record = json.loads((out / "checkpoints" / label / "layerimp.json").read_text())
        assert sorted(record["removed"]) == sorted(removable[label]["blocks"])
    gaps = report["scorers"]["depth"]["healed"]["rescale"]["gaps"]
    assert sorted(block for gap in gaps for block in gap["removed"]) == sorted(removable["depth+rescale"]["blocks"])


def test_without_tasks_a_model_that_knows_nothing_of_the_text_is_refused(
    layerimp_command: Run, command: tuple[Any, ...]
) -> None:
    rows = command.index("--samples") + 1
    text = (*command[:rows], 32, *command[rows + 1 : -2])
    without = (*text, "--evaluator", "footprint", "--keep", 0.05)
    err = layerimp_command.refused(*without)
    assert "note: no tasks: what is kept is measured on 8 held-out rows" in err
    assert "layerimp: held-out text: nothing can be retained of token_perplexity" in err


@pytest.mark.slow
def test_without_tasks_text_is_held_out(layerimp_command: Run, tmp_path: Path) -> None:
    text = ("--samples", 40, "--max-length", 64, "--tasks", "none", "--evaluator", "harness", "--no-baselines")
    asked = ("--keep", 0.9, "--heal", "rescale", "--output", tmp_path / "out")
    report = searched(layerimp_command, "run", "--scorer", "block-influence", *text, *asked)
    search = report["search"]
    assert search["held_out"]
    assert search["measured_on"] == ["held-out text"]
    assert report["calibration"]["rows"] == 30
    assert report["metrics"]["original"]["held-out text"]["token_perplexity"]["documents"] == 5
    for most in search["removable"].values():
        assert most["count"] >= 1
        assert min(most["retained"]["mean"], most["confirmed"]["mean"]) >= 0.9
    _, printed, _ = layerimp_command("report", tmp_path / "out")
    assert "searched: on the half of the rows of held-out calibration text used by the search" in printed


def agreements(removed: list[int]) -> list[float]:
    """The agreement of the starter without some blocks with the whole one, on the searching and confirming rows."""
    model, tokenizer = layerimp.load("starter")
    drawn = load_calibration("starter", tokenizer, samples=40, max_length=64)
    rows = drawn.rows[3::4]
    with torch.no_grad():
        before = [model(torch.tensor([row])).logits[0, :-1].argmax(-1) for row in rows]
        pruned = layerimp.prune(model, removed)
        after = [pruned(torch.tensor([row])).logits[0, :-1].argmax(-1) for row in rows]
    same = [float((a == b).float().mean()) for a, b in zip(before, after, strict=True)]
    order = sorted(set(rows))
    halves = [[share for row, share in zip(rows, same, strict=True) if order.index(row) % 2 == half] for half in (0, 1)]
    return [sum(half) / len(half) for half in halves]


def test_an_agreement_is_searched_on_one_half_and_confirmed_on_the_other(layerimp_command: Run, task: Path) -> None:
    """The tasks take no part in the search, and are measured on all documents of the chosen models."""
    text = ("--samples", 40, "--max-length", 64, "--evaluator", "harness", "--no-baselines", "--tasks", task)
    printed, _ = layerimp_command.done("run", "--scorer", "block-influence", *text, "--keep", "agreement=0.6", "--json")
    report, model = by_label(printed), next(iter(Results.model_validate_json(printed).models.values()))
    search, most = report["search"], report["search"]["removable"]["block-influence"]
    assert (search["keep"], search["keep_of"], search["measured_on"]) == (0.6, "agreement", ["held-out text"])
    scores = report["scorers"]["block-influence"]["scores"]
    order = sorted(range(len(scores)), key=lambda block: (scores[block], -block))
    assert most["blocks"] == order[: most["count"]]
    assert 0 < most["count"] < len(order) - 1
    assert min(agreements(order[: most["count"]])) >= 0.6 > min(agreements(order[: most["count"] + 1]))
    shares = [most[half]["mean"] for half in ("retained", "confirmed")]
    assert shares == pytest.approx(agreements(most["blocks"]), abs=1e-6)
    assert report["metrics"]["original"].keys() == report["metrics"]["block-influence"].keys() == {"mood"}
    assert report["metrics"]["original"]["mood"]["acc"]["documents"] == 12
    assert "blocks, while at least 60% of the predictions agree: " in model.answer


def test_an_agreement_adds_no_baselines_and_needs_no_tasks(
    layerimp_command: Run, nine_blocks: Path, calibration_file: Path
) -> None:
    text = ("--calibration", calibration_file, "--samples", 16, "--max-length", 16, "--heal", "rescale")
    command = ("run", "--model", nine_blocks, *text, "--tasks", "none", "--evaluator", "harness")
    report = searched(layerimp_command, *command, "--scorer", "block-influence", "--keep", "agreement=0.3")
    assert report["search"]["removable"].keys() == {"block-influence", "block-influence+rescale"}
    assert "metrics" not in report
    assert "baselines" not in report


def test_without_tasks_there_has_to_be_text_to_hold_out(layerimp_command: Run) -> None:
    asked = ("--samples", 3, "--max-length", 64, "--tasks", "none", "--no-baselines", "--keep", 0.9)
    err = layerimp_command.refused("run", "--scorer", "block-influence", *asked)
    assert err.splitlines()[-1] == (
        "layerimp: without tasks one row of 4 is held out to measure what is kept, and there are 3; draw more "
        "(--samples), or name tasks (--tasks)"
    )


@pytest.mark.slow
def test_on_the_starter_the_number_holds_and_one_more_does_not_as_exhaustive_evaluation_says() -> None:
    names = ["block-influence", "avss", "relative-magnitude", "random", "depth"]
    asked: dict[str, Any] = {"scorers": names, "baselines": [], "evaluators": ["harness"], "limit": 60}
    asked |= {"calibration": {"samples": 16, "max_length": 64}, "tasks": ["starter_stories", "starter_qa"]}
    search = layerimp.run(make_recipe({**asked, "keep": 0.9})).model.search
    assert search is not None
    curves: dict[str, dict[int, tuple[float, float]]] = {name: {} for name in names}
    for count in range(1, 12):
        prepared = prepare("run", make_recipe({**asked, "count": count}), Permissions(), SILENT)
        stages = prune_by_amount(Started.of(prepared, None))
        intact = DocumentHalves.of(stages.metrics)
        for name in names:
            parts = DocumentHalves.of(stages.models[name].metrics)
            retained = kept(intact.search, parts.search), kept(intact.confirmation, parts.confirmation)
            assert retained[0] is not None
            assert retained[1] is not None
            curves[name][count] = retained[0].mean, retained[1].mean
    for name, most in search.removable.items():
        held = [0, *(n for n, (share, _) in curves[name].items() if share >= 0.9)]
        both = [0, *(n for n, shares in curves[name].items() if min(shares) >= 0.9)]
        first = most.before_confirmation
        assert first in held
        assert first + 1 not in held
        assert most.count == max(n for n in both if n <= first)
        for each in most.tried:
            assert each.retained is not None
            assert each.retained.mean == pytest.approx(curves[name][each.count][0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--keep", "agreement=1.5"), "keep 1.5 is not between 0 and 1; it is a share such as 0.95"),
        (("--keep", "accuracy=0.9"), "--keep takes a share such as 0.95, or agreement=0.9, got 'accuracy=0.9'"),
        (("--keep", "much"), "--keep takes a share such as 0.95, or agreement=0.9, got 'much'"),
        (("--keep", 0), "keep 0 is not between 0 and 1; it is a share such as 0.95"),
        (("--keep", "nan"), "keep nan is not between 0 and 1; it is a share such as 0.95"),
        (("--keep", 0.9, "--ratio", 0.5), "ratio and keep contradict each other; give one of them"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: tuple[Any, ...], said: str, layerimp_command: Run, command: tuple[Any, ...]
) -> None:
    err = layerimp_command.refused(*command, *arguments)
    assert err == f"layerimp: {said}\n"


def test_a_task_that_the_intact_model_cannot_do_is_refused_before_anything_is_scored(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Curve, "right", {0: (0, 0)})
    out = tmp_path / "out"
    err = layerimp_command.refused(*command, "--keep", 0.95, "--output", out)
    assert err.splitlines()[-1].startswith("layerimp: curve: nothing can be retained of acc, for the intact model is ")
    assert "score" not in err
    assert not out.exists()


def test_prune_measures_nothing_that_could_be_kept(layerimp_command: Run, nine_blocks: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {nine_blocks}\nkeep: 0.95\n")
    err = layerimp_command.refused("prune", "--recipe", recipe, "--output", tmp_path / "out")
    assert "prune measures nothing that could be kept: give a ratio or a count, or use layerimp run" in err
