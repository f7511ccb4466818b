"""`layerimp shrink`: one command from a model to a smaller checkpoint."""

from __future__ import annotations

import hashlib
import html
import json
import random
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_harness import Harness
from support.mood import Run, done_once
from support.tiny import saved, tiny
from transformers import AutoModelForCausalLM, BertForMaskedLM

import layerimp
from layerimp.calibration.sampling import document_hash
from layerimp.checkpoint.record import read_record
from layerimp.defaults import PROSE
from layerimp.errors import ModelError, TaskError
from layerimp.models.discovery import find_blocks
from layerimp.pipeline import run
from layerimp.pipeline import shrink as shrinking
from layerimp.pipeline.output import why_not_shrunk
from layerimp.recipe.plans import read_plans
from layerimp.registry.assets import assets
from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.tables.shrunk import LINES, WIDTH, lines_of
from layerimp.testing import tiny_tokenizer
from layerimp.testing.tiny import WORDS

TRAINING = ("--set", "distill.steps=12", "--set", "distill.rows=4")


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerimp.evaluation.speed.ROUNDS", 2)


@pytest.fixture
def command(model_dir: Path, calibration_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.chdir(tmp_path)
    return shrinking_of(model_dir, calibration_file)


def shrinking_of(model: Path, text: Path) -> list[Any]:
    rows = ["--calibration", text, "--samples", 16, "--max-length", 16]
    return ["shrink", model, *rows, "--tasks", "none", "--count", 2, "--heal-text", text]


@pytest.fixture(scope="module")
def made(model_dir: Path, calibration_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A smaller model, in the directory that the command chose, and what it printed."""
    place = tmp_path_factory.mktemp("shrunk")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("layerimp.evaluation.speed.ROUNDS", 2)
        patched.chdir(place)
        printed, _ = done_once(place, *shrinking_of(model_dir, calibration_file), *TRAINING)
    return place / f"{model_dir.name}-small", printed


def test_one_checkpoint_lies_in_the_output_itself(made: tuple[Path, str]) -> None:
    small, _ = made
    written = {
        "README.md",
        "config.json",
        "layerimp.json",
        "model.safetensors",
        "plan.json",
        "report.html",
        "shrink.json",
    }
    assert written <= {file.name for file in small.iterdir()}
    report = ShrinkReport.model_validate_json((small / "shrink.json").read_text())
    removed = json.loads((small / "plan.json").read_text())["plans"]["divergence"]["blocks"]
    assert removed == report.plan.blocks
    assert read_plans(small / "plan.json").keys() == {"divergence"}
    model = AutoModelForCausalLM.from_pretrained(small)
    assert len(find_blocks(model)) == report.small.blocks == 2
    assert report.small.parameters == sum(value.numel() for value in model.parameters())
    record = read_record(small)
    assert record is not None
    assert list(record.removed) == sorted(removed)
    assert list(record.healers) == [stage.healer for stage in report.stages if stage.kept]
    assert [stage.label for stage in report.stages] == ["linear", "distill"]
    assert report.minutes.keys() == {"choose", "linear", "distill", "measure", "write"}
    assert report.speeds.keys() == {"prefill", "decoding"}


def test_what_is_measured_is_what_is_written(layerimp_command: Run, made: tuple[Path, str], model_dir: Path) -> None:
    """The divergence in the report is that of the written files, on the rows that the record keeps apart."""
    small, _ = made
    report = json.loads((small / "shrink.json").read_text())
    compared, _ = layerimp_command.done("compare", model_dir, small, "--tasks", "none", "--max-length", 16, "--json")
    (fidelity,) = json.loads(compared)["fidelity"].values()
    assert report["fidelity"]["divergence"]["mean"] == pytest.approx(fidelity["divergence"]["mean"], rel=1e-5)
    assert report["fidelity"]["agreement"] == fidelity["agreement"]


def test_the_summary_fits_a_screen(made: tuple[Path, str]) -> None:
    small, printed = made
    lines = printed.rstrip("\n").split("\n")
    assert len(lines) <= LINES
    assert all(len(line) <= WIDTH for line in lines)
    assert lines[-1] == f"    model = AutoModelForCausalLM.from_pretrained('./{small.name}')"
    report = ShrinkReport.model_validate_json((small / "shrink.json").read_text())
    assert lines_of(report.model_copy(update={"output": f"./{small.name}"})) == lines
    *_, cost = (place for place, line in enumerate(lines) if line.startswith("took "))
    assert "\n".join(lines[: cost + 1]) in html.unescape((small / "report.html").read_text())


def test_a_poor_model_says_so_first(
    layerimp_command: Run, command: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = {"divergence": 0.0, "agreement": 0.0, "copying": 0.0, "retained": 0.0}
    monkeypatch.setattr("layerimp.report.verdict.POOR", limits)
    printed, _ = layerimp_command.done(*command[:-2], "--minutes", 0, "--output", "small")
    assert printed.startswith("poor: ")
    assert "what would help: a smaller cut (--count 1), training (--minutes)" in printed
    assert "- **Poor:** its predictions are " in (tmp_path / "small" / "README.md").read_text()
    assert why_not_shrunk(tmp_path / "small") is None
    (tmp_path / "small" / "notes.txt").write_text("mine")
    assert why_not_shrunk(tmp_path / "small") == "it holds 'notes.txt', which layerimp did not write"
    report = json.loads((tmp_path / "small" / "shrink.json").read_text())
    assert report["verdict"] == "poor"
    assert [stage["label"] for stage in report["stages"]] == ["linear"], "no minutes train nothing"
    (tmp_path / "recipe.json").write_text(json.dumps(report["recipe"]))
    for minutes, healers in (((), ["linear"]), (("--minutes", 1), ["linear", "distill"])):
        again, _ = layerimp_command.done("shrink", "--recipe", "recipe.json", *minutes, "--dry-run", "--json")
        (work,) = json.loads(again)["models"].values()
        names = [stage["name"] for stage in work["stages"]]
        assert [name for name in names if name.startswith("heal")] == [f"heal by {healer}" for healer in healers]
    training = {"name": "distill", "options": {"first": None, "tokens": 60_000, "minutes": 30}}
    report["recipe"]["healers"]["distill"] = training
    (tmp_path / "recipe.json").write_text(json.dumps(report["recipe"]))
    longer, _ = layerimp_command.done("shrink", "--recipe", "recipe.json", "--minutes", 60, "--dry-run", "--json")
    (work,) = json.loads(longer)["models"].values()
    times = {stage["name"]: stage["seconds"] for stage in work["stages"]}
    assert times["heal by distill"] > 3000, "whatever the number of tokens in the record"


def test_a_failed_stage_and_a_task_at_chance_stand_in_the_summary(
    layerimp_command: Run, command: list[Any], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **_options: Any) -> None:
        raise ModelError("it has no map")

    monkeypatch.setattr(run, "heal_beside", fail)
    printed = failed(layerimp_command, command, task)
    assert re.match("(poor: )?linear failed: ", printed)
    assert "\nlinear: failed: it has no map\n" in printed
    assert re.search("^mood .* at chance$", printed, re.MULTILINE)
    (measured,) = json.loads((tmp_path / "small" / "shrink.json").read_text())["tasks"]
    assert measured["retained"] is None


def failed(layerimp_command: Run, command: list[Any], task: Path) -> str:
    """What the command prints where something has failed."""
    command[command.index("none")] = task
    code, printed, _ = layerimp_command(*command[:-2], "--minutes", 0, "--output", "small")
    assert code == 1
    return printed


@pytest.mark.parametrize("works", [0, 1], ids=["on the intact model", "on the small model"])
def test_a_task_that_fails_costs_no_model(
    layerimp_command: Run, command: list[Any], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: int
) -> None:
    """It is measured after hours of training."""
    evaluate, calls = Harness.evaluate, count()

    def fail(*given: Any) -> Any:
        if next(calls) >= works:
            raise TaskError("no labels")
        return evaluate(*given)

    monkeypatch.setattr(Harness, "evaluate", fail)
    printed = failed(layerimp_command, command, task)
    assert re.match("(poor: )?harness failed: ", printed)
    assert re.search("harness: failed: .*no labels", " ".join(printed.split()))
    report = ShrinkReport.model_validate_json((tmp_path / "small" / "shrink.json").read_text())
    assert (report.tasks, list(report.failures)) == ([], ["harness"])


def test_a_model_that_an_evaluator_has_changed_is_not_written(
    layerimp_command: Run, command: list[Any], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(_self: Harness, model: Any, _tokenizer: Any) -> None:
        with torch.no_grad():
            model.lm_head.weight.add_(1.0)
        raise TaskError("no labels")

    monkeypatch.setattr(Harness, "evaluate", spoil)
    command[command.index("none")] = task
    code, printed, err = layerimp_command(*command[:-2], "--minutes", 0, "--output", "small")
    assert (code, printed) == (2, "")
    assert "changed the weight lm_head.weight; no number after that could be trusted" in err
    assert not (tmp_path / "small").exists()


def test_what_was_to_be_kept_is_measured_on_documents_that_did_not_choose(
    layerimp_command: Run, command: list[Any], task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agreement that was to be kept is no task, and all documents of the task are left to measure on."""
    documents = [{"text": f"the {word} was big and it", "label": n % 2} for n, word in enumerate(WORDS[4:24])]
    task.with_name("docs.jsonl").write_text("\n".join(map(json.dumps, documents)))
    monkeypatch.setattr("layerimp.pipeline.keeping._Trials.keeps", lambda *_: True)
    monkeypatch.setattr("layerimp.pipeline.keeping.check_halves", lambda *_: None)
    options = [option for option in command[: command.index("--count")] if option != "none"]
    place = options.index("--tasks") + 1
    counts: list[list[int]] = []
    for keep in ("0.5", "agreement=0.5"):
        asked = [*options[:place], task, *options[place:], "--keep", keep, "--minutes", 0, "--output", f"out-{keep}"]
        printed, _ = layerimp_command.done(*asked, "--json")
        (measured,) = json.loads(printed)["tasks"]
        said = " ".join(" ".join(lines_of(ShrinkReport.model_validate_json(printed))).split())
        assert ("; the tasks are measured on documents that did not choose" in said) == (keep == "0.5")
        counts.append([measured[of]["documents"] for of in ("intact", "small")])
    (confirming, of_small), whole = counts
    assert of_small == confirming < 20
    assert confirming > 0
    assert whole == [20, 20]


def test_its_report_is_a_page(layerimp_command: Run, made: tuple[Path, str]) -> None:
    small, _ = made
    code, printed, err = layerimp_command("report", small)
    assert (code, printed) == (2, "")
    said = f"{small} is no output of layerimp bench or run; its report is the page {small / 'report.html'}"
    assert err == f"layerimp: {said}\n"


def test_text_of_the_hub_is_pinned_and_named(
    layerimp_command: Run, command: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for the hub never ends, so that reading it as a whole would not either."""
    asked: list[Any] = []

    def load_dataset(*names: Any, **options: Any) -> Iterator[dict[str, str]]:
        asked.append((names, options))
        return ({"text": row(number)} for number in count())

    def row(number: int) -> str:
        return f"{number} the cat was big and the dog was small and it ran"

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    printed, _ = layerimp_command.done(*command[:-1], "hub", *TRAINING, "--output", "small", "--json")
    revision = "87f09149ef4734204d70ed1d046ddc9ca3f2b8f9"
    expected = ("HuggingFaceFW/fineweb-edu", "sample-10BT"), {"split": "train", "streaming": True, "revision": revision}
    assert asked
    assert all(each == expected for each in asked)
    text = json.loads(printed)["training_text"]
    assert text["source"].startswith(f"HuggingFaceFW/fineweb-edu@{revision}")
    names = [document_hash(row(number)) for number in range(text["rows"])]
    assert names
    assert text["hash"] == hashlib.sha256("".join(names).encode()).hexdigest()
    card = (tmp_path / "small" / "README.md").read_text()
    assert "licence ODC-By 1.0" in card
    assert text["hash"] in card


def test_a_data_set_out_of_reach_is_refused_before_the_model_is_loaded(
    layerimp_command: Run, command: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **_options: Any) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr("datasets.load_dataset", fail)
    monkeypatch.setattr(run, "load_model", fail)
    err = layerimp_command.refused(*command[:-1], "hub", "--output", "small")
    assert "cannot read the data set 'hub': offline" in err


def test_the_card_says_how_to_make_it_again(
    layerimp_command: Run, made: tuple[Path, str], command: list[Any], tmp_path: Path
) -> None:
    small, _ = made
    card = (small / "README.md").read_text()
    assert "layerimp shrink --recipe recipe.json --output out" in card
    recipe = next(block for block in card.split("```json\n")[1:] if '"healers"' in block).partition("```")[0]
    again = json.loads(recipe) | {"model": str(command[1]), "heal_text": str(command[-1])}
    again["calibration"]["source"] = str(command[3])
    (tmp_path / "recipe.json").write_text(json.dumps(again))
    printed, _ = layerimp_command.done("shrink", "--recipe", "recipe.json", "--output", "out", "--json")
    written = json.loads((tmp_path / "out" / "shrink.json").read_text())
    assert json.loads(printed) == written | {"output": str(tmp_path / "out")}
    assert json.loads(printed)["recipe"] == json.loads((small / "shrink.json").read_text())["recipe"]
    files = [(place / "model.safetensors").read_bytes() for place in (small, tmp_path / "out")]
    assert files[0] == files[1]


class KilledError(Exception):
    """Stands for a signal that nothing catches."""


@pytest.mark.parametrize("stages", [2, *(pytest.param(stages, marks=pytest.mark.slow) for stages in (0, 1))])
def test_an_interrupted_command_goes_on_to_the_same_bits(
    layerimp_command: Run,
    command: list[Any],
    made: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stages: int,
) -> None:
    """Killed after so many stages of healing, it repeats neither these nor the choice."""
    heal, done = run.heal_beside, []

    def dying(*args: Any, **options: Any) -> Any:
        if len(done) == stages:
            raise KilledError
        done.append(args)
        return heal(*args, **options)

    def die(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as killing:
        killing.setattr(run, "heal_beside", dying)
        killing.setattr(shrinking, "measured", die)
        with pytest.raises(KilledError):
            layerimp_command(*command, *TRAINING, "--output", "again")
    assert not (tmp_path / "again").exists()
    repeated: list[Any] = []
    monkeypatch.setattr(shrinking, "_chosen", die)
    monkeypatch.setattr(run, "heal_beside", lambda *a, **o: (repeated.append(a), heal(*a, **o))[1])
    layerimp_command.done(*command, *TRAINING, "--output", "again")
    assert len(repeated) == 2 - stages
    expected, resumed = (
        AutoModelForCausalLM.from_pretrained(small).state_dict() for small in (made[0], tmp_path / "again")
    )
    texts = [
        json.loads((small / "shrink.json").read_text())["training_text"] for small in (made[0], tmp_path / "again")
    ]
    assert texts[0] == texts[1]
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())


def test_a_larger_model_than_memory_is_pruned_in_its_files(
    layerimp_command: Run, command: list[Any], tmp_path: Path
) -> None:
    printed, err = layerimp_command.done(*command, "--offload", "--output", "small", "--json")
    assert "neither healed nor measured: the model is read block by block" in err
    report = ShrinkReport.model_validate_json(printed)
    assert (report.verdict, report.stages, report.speeds, report.fidelity) == ("not measured", [], {}, None)
    assert report.plan.scorer == "block-influence"
    assert lines_of(report)[0].startswith("not measured: ")
    assert report.reasons == ["the model is read block by block"]
    assert len(find_blocks(AutoModelForCausalLM.from_pretrained(tmp_path / "small"))) == 2


def test_a_masked_language_model_is_pruned_alone(layerimp_command: Run, calibration_file: Path, tmp_path: Path) -> None:
    model = BertForMaskedLM(tiny("bert").config)
    masked = saved(model, tmp_path / "masked")
    text = ("--calibration", calibration_file, "--samples", 16, "--max-length", 16)
    printed, _ = layerimp_command.done("shrink", masked, *text, "--count", 1, "--output", tmp_path / "s", "--json")
    report = json.loads(printed)
    assert report["verdict"] == "not measured"
    assert report["reasons"] == ["the model predicts neither the next token nor a label"]


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return saved(tiny("bert"), tmp_path / "classifier")


def test_a_classifier_needs_text_of_its_own(layerimp_command: Run, classifier: Path, tmp_path: Path) -> None:
    code, printed, err = layerimp_command("shrink", classifier, "--output", tmp_path / "small")
    assert (code, printed) == (2, "")
    assert "is a classifier" in err
    assert "--calibration" in err


def test_a_classifier_shrinks(layerimp_command: Run, classifier: Path, calibration_file: Path, tmp_path: Path) -> None:
    text = ("--calibration", calibration_file, "--samples", 16, "--max-length", 16, "--packing", "rows")
    printed, err = layerimp_command.done(
        "shrink", classifier, *text, "--tasks", "none", "--count", 1, *TRAINING, "--output", tmp_path / "s", "--json"
    )
    assert f"the rest of it: --heal-text {calibration_file}; other: " in err
    report = ShrinkReport.model_validate_json(printed)
    assert report.fidelity is not None
    assert report.speeds.keys() == {"prefill"}
    assert report.loader == "AutoModelForSequenceClassification"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--minutes", -1), "--minutes -1 is no length of a training"),
        (("--minutes", 1, "--set", "distill.minutes=2"), "given twice: --minutes, and --set distill.minutes=2"),
        (("--minutes", 0, "--set", "distill.steps=3"), "--set distill.steps=3 is for training, and --minutes 0"),
        (("--minutes", 0, "--heal-text", "hub"), "--heal-text is for training, and --minutes 0 trains nothing"),
        (("--recipe", "two.json"), "shrink chooses by one scorer, and the recipe names avss, depth"),
        (("--calibration", "no.jsonl"), "does not exist"),
    ],
)
def test_wrong_options(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, options: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.json").write_text('{"scorers": ["avss", "depth"]}')
    code, printed, err = layerimp_command("shrink", model_dir, "--output", tmp_path / "small", *options)
    assert (code, printed) == (2, "")
    assert message in err
    assert not (tmp_path / "small").exists()


def test_a_recipe_without_healers_says_that_nothing_is_healed(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.json").write_text('{"scorers": ["depth"], "tasks": []}')
    _, err = layerimp_command.done("shrink", model_dir, "--recipe", "one.json", "--count", 1, "--dry-run")
    assert "the recipe names no healer: what is left is neither repaired nor trained" in err


def test_shipped_text_is_little_for_another_model(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for source in ("starter", "prose"):
        _, err = layerimp_command.done("shrink", model_dir, "--calibration", source, "--max-length", 16, "--dry-run")
        assert f"the text {source} may be unlike yours, and is too little to train on" in err


def test_only_a_smaller_model_is_replaced(layerimp_command: Run, command: list[Any], tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.txt").write_text("mine")
    err = layerimp_command.refused(*command[:-2], "--minutes", 0, "--output", "small", "--overwrite")
    assert "does not replace" in err


@pytest.mark.parametrize(
    ("architecture", "fields", "said"),
    [
        ("mixtral", {"count": 2}, "no single linear map ends the MLP"),
        ("llama", {"blocks": [1]}, "removed: block 1"),
    ],
)
def test_experts_and_named_blocks(architecture: str, fields: dict[str, Any], said: str, calibration_file: Path) -> None:
    text = {"source": str(calibration_file), "samples": 16, "max_length": 16}
    small = layerimp.shrink(tiny(architecture), tiny_tokenizer(), minutes=0, calibration=text, tasks=[], **fields)
    assert said in " ".join(" ".join(lines_of(small.report)).split())
    assert [stage.label for stage in small.report.stages] == ["linear"]


def test_a_model_in_memory_shrinks(calibration_file: Path) -> None:
    model, tokenizer = tiny("llama"), tiny_tokenizer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = {"source": str(calibration_file), "samples": 16, "max_length": 16}
    small = layerimp.shrink(model, tokenizer, minutes=0, count=1, calibration=text, tasks=[])
    assert small.model is not None
    assert len(find_blocks(small.model)) == len(find_blocks(model)) - 1
    assert small.report.output is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("measured_on", [True, False], ids=["text of fidelity", "calibration text"])
def test_the_card_shows_no_prompts_of_the_users_text(
    known: bool, measured_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor any other prompts if the tokenizer knows no word of the prose that ships."""
    draw, texts = random.Random(0), [tmp_path / "own.jsonl", tmp_path / "shipped.jsonl"]
    for text in texts:
        lines = [" ".join(draw.choices(WORDS[4:], k=64)) for _ in range(60)]
        text.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    if known:
        monkeypatch.setitem(assets().texts, PROSE, texts[1])  # type: ignore[index]
    small, own = tmp_path / "small", {"source": str(texts[0])}
    text: dict[str, Any] = {"samples": 16, "max_length": 64, **({"source": PROSE} if measured_on else own)}
    evaluators = {"fidelity": {"options": {"text": str(texts[0])} if measured_on else {}}}
    fields = {"calibration": text, "evaluators": evaluators, "tasks": [], "output": str(small)}
    model = tiny("llama", max_position_embeddings=128)
    made = layerimp.shrink(model, tiny_tokenizer(), minutes=0, count=1, **fields)
    card, report = (small / "README.md").read_text(), made.report
    assert report.fidelity is not None
    assert report.fidelity.generation is not None
    assert [sample.prompt in card for sample in report.samples] == [True] * (2 * known)
    assert not [sample.prompt for sample in report.fidelity.generation.samples if sample.prompt in card]
