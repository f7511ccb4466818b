"""`layerimp run --heal`: healed models beside the unhealed ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_closedform import Rescale
from support.by_label import by_label
from support.fake_plugins import Install
from support.mood import Run, changed
from support.sst2 import write_sst2
from support.tiny import saved, tiny
from transformers import AutoModelForCausalLM

from layerimp import Healer
from layerimp.calibration.sampling import document_hash
from layerimp.checkpoint.record import read_record
from layerimp.healer import Case, Repair
from layerimp.testing import tiny_tokenizer


@pytest.fixture
def command(model_dir: Path, calibration_file: Path, task: Path) -> tuple[Any, ...]:
    text = ("--calibration", calibration_file, "--samples", 16, "--max-length", 16)
    return ("run", "--model", model_dir, *text, "--tasks", task, "--count", 2, "--scorer", "block-influence")


def test_healed_models_stand_beside_the_unhealed_ones(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    heal = ("--heal", "rescale", "--heal", "ls=linear", "--set", "ls.ridges=[0.1]")
    printed, _ = layerimp_command.done(*command, *heal, "--output", out, "--json")
    results = by_label(printed)
    scorers = ["block-influence", "random", "depth"]
    labels = {"original", *scorers, *(f"{scorer}+{healer}" for scorer in scorers for healer in ("rescale", "ls"))}
    for part in ("metrics", "footprint"):
        assert results[part].keys() == labels
    assert results["retained_worst"].keys() == labels - {"original"} == set(results["order"])
    healed = results["scorers"]["block-influence"]["healed"]
    assert healed.keys() == {"rescale", "ls"}
    for healer, model in healed.items():
        assert model["checkpoint"] == str(out / "checkpoints" / f"block-influence+{healer}")
        assert sorted(block for gap in model["gaps"] for block in gap["removed"]) == sorted(
            results["scorers"]["block-influence"]["removed"]
        )
        assert set(model["loss"]) == {"intact", "pruned", "healed"}
        lost = model["loss"]["pruned"] - model["loss"]["intact"]
        assert model["recovered"] is None or model["recovered"] == pytest.approx(
            (model["loss"]["pruned"] - model["loss"]["healed"]) / lost
        )
    assert results["baselines"]["depth"]["healed"].keys() == {"rescale", "ls"}
    assert results["baselines"]["depth"]["healed"]["ls"]["checkpoint"] is None  # baselines are not kept
    assert {path.name for path in (out / "checkpoints").iterdir()} == {
        "block-influence", "block-influence+rescale", "block-influence+ls",
    }  # fmt: skip
    record = read_record(out / "checkpoints" / "block-influence+ls")
    assert record
    assert record.healers == ("linear",)
    assert "**Healed:** by ls" in (out / "checkpoints" / "block-influence+ls" / "README.md").read_text()


def without_flips(metrics: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The metrics without the comparison of answers with the intact model's, which a model by itself lacks."""
    return {
        task: {name: metric | {"flips": None} for name, metric in of_task.items()} for task, of_task in metrics.items()
    }


def test_what_is_measured_is_what_is_written(layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path) -> None:
    """The healed checkpoint, evaluated by itself, has the metrics of the run; the unhealed one is left as it was."""
    out = tmp_path / "out"
    plain, healed = tmp_path / "plain", ("--heal", "linear", "--set", "linear.ridges=[0.1]")
    layerimp_command(*command, "--no-baselines", "--output", plain)
    printed, _ = layerimp_command.done(*command, *healed, "--no-baselines", "--output", out, "--json")
    metrics = by_label(printed)["metrics"]
    for label in ("block-influence", "block-influence+linear"):
        model = ("--model", out / "checkpoints" / label, "--tasks", command[command.index("--tasks") + 1])
        _, alone, _ = layerimp_command("evaluate", *model, "--evaluator", "harness", "--json")
        assert by_label(alone)["metrics"]["original"] == without_flips(metrics[label])
    first, second = (
        AutoModelForCausalLM.from_pretrained(where / "checkpoints" / "block-influence") for where in (plain, out)
    )
    for path, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[path])


def test_plans_of_the_same_blocks_share_a_healed_model(
    layerimp_command: Run, command: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    heal = Rescale.heal
    monkeypatch.setattr(Rescale, "heal", lambda self, case: calls.append(case) or heal(self, case))
    twins = ("--scorer", "twin=block-influence", "--no-baselines", "--heal", "rescale")
    printed, _ = layerimp_command.done(*command, *twins, "--json")
    results = by_label(printed)
    assert len(calls) == 1
    assert results["metrics"]["twin+rescale"] == results["metrics"]["block-influence+rescale"]
    assert results["scorers"]["twin"]["healed"] == results["scorers"]["block-influence"]["healed"]


def test_a_healer_that_fails_leaves_the_rest(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Rescale, case: Any) -> Any:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(Rescale, "heal", broken)
    heal = ("--heal", "rescale", "--heal", "linear", "--no-baselines", "--output", tmp_path / "out")
    code, printed, _ = layerimp_command(*command, *heal, "--json")
    assert code == 1
    results = by_label(printed)
    assert "healer 'rescale'" in results["failed"]["block-influence+rescale"]
    assert "oops" in results["failed"]["block-influence+rescale"]
    assert results["scorers"]["block-influence"]["healed"].keys() == {"linear"}
    assert "block-influence+rescale" not in results["metrics"]
    assert not (tmp_path / "out" / "checkpoints" / "block-influence+rescale").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--heal", "linear", "--heal", "linear"), "give it a label: --heal LABEL=linear"),
        (("--heal", "a+b=linear"), "'a+b' cannot be a label"),
        (("--heal", "linear", "--set", "linear.ridge=1"), "unknown option 'ridge' of healer 'linear'"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, options: tuple[Any, ...], said: str
) -> None:
    err = layerimp_command.refused(*command, *options, "--output", tmp_path / "out")
    assert said in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_healing_on_what_is_measured_is_refused(
    layerimp_command: Run, command: tuple[Any, ...], task: Path, calibration_file: Path, tmp_path: Path
) -> None:
    """One document of the text is also in the task, with other white space and case."""
    document = json.loads((task.parent / "docs.jsonl").read_text().splitlines()[0])["text"]
    lines = calibration_file.read_text().splitlines()
    shared = tmp_path / "shared.jsonl"
    shared.write_text("\n".join([*lines, json.dumps({"text": f"  {document.upper()} "})]) + "\n")
    text = ("--calibration", shared, "--packing", "rows", "--samples", len(lines) + 1)
    asked = (command[0], *changed(command[1:], *text))
    asked = (*asked, "--heal", "rescale", "--no-baselines")
    err = layerimp_command.refused(*asked, "--output", tmp_path / "out")
    assert "shares 1 of its" in err.splitlines()[-1]
    assert "--allow-overlap" in err
    assert not (tmp_path / "out").exists()
    _, err = layerimp_command.done(*asked, "--allow-overlap")
    assert "shares" not in err
    _, err = layerimp_command.done(*asked[: asked.index("--heal")], "--heal", "none", "--no-baselines")
    assert "documents with the tasks: blocks chosen by it seem better than they are" in " ".join(err.split())


def written(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_healers_that_train_get_further_text(
    layerimp_command: Run,
    command: tuple[Any, ...],
    tmp_path: Path,
    calibration_file: Path,
    plugged: Any,
    install: Install,
) -> None:
    """The whole text is read, except documents that were drawn for calibration, or that a task measures on."""
    seen: list[int] = []

    class Reading(Healer):
        """Counts the documents of the further text."""

        name = "reading"
        reads_further = True

        def heal(self, case: Case) -> list[Repair]:
            seen.extend(sum(int(batch["attention_mask"].sum()) for batch in case.further) for _ in range(2))
            return [Repair(gap, "nothing") for gap in case.gaps]

    plugged(install("reading", layerimp_healers=lambda: [Reading]))
    drawn = json.loads(calibration_file.read_text().splitlines()[0])["text"]
    words = [f"the dog number {number} ran far away from the small house and came back" for number in range(6)]
    file = written(tmp_path / "more.jsonl", *words, drawn, drawn.upper())
    asked = ("--heal", "reading", "--no-baselines", "--packing", "rows", "--heal-text", file)
    layerimp_command.done(*command, *asked)
    assert seen[0] == seen[1] > 6 * 10
    everything = seen[0]
    written(file, *words)
    assert layerimp_command(*command, *asked)[0] == 0
    assert seen[2] == everything, "what was drawn for calibration is no part of it, in capitals or not"
    (tmp_path / "data_set").mkdir()
    written(tmp_path / "data_set" / "train.jsonl", *words, "the cat was big and it")
    layerimp_command.done(*command, *asked[:-1], tmp_path / "data_set")
    assert seen[4] == everything, "what a task measures on is no part of a data set"


def test_the_card_of_a_trained_model_names_what_was_trained_on(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path
) -> None:
    """That of a model which another healer repaired afterwards does not."""
    words = [f"{number} the cat was big and it ran" for number in range(9)]
    more, out = written(tmp_path / "more.jsonl", *words), tmp_path / "out"
    training = ("--heal", "distill", "--heal-text", more, "--set", "distill.steps=40", "--set", "distill.first=null")
    printed, _ = layerimp_command.done(
        *command, "--blocks", "1,2", *training, "--heal", "linear", "--no-baselines", "--output", out, "--json"
    )
    healed = by_label(printed)["scorers"]["block-influence"]["healed"]
    assert all(model["gaps"][0]["done"] != "nothing" for model in healed.values())
    read = hashlib.sha256("".join(map(document_hash, words)).encode()).hexdigest()
    assert healed["distill"]["training_text"] == {"source": str(more), "licence": "", "rows": 9, "hash": read}
    assert "training_text" not in healed["linear"]
    trained, repaired = (
        (out / "checkpoints" / f"block-influence+{healer}" / "README.md").read_text() for healer in healed
    )
    assert f"- **Training text:** 9 documents of more.jsonl (SHA-256 of their hashes `{read}`)" in trained
    assert "Training text" not in repaired


def test_the_training_split_of_a_task_is_further_text(
    layerimp_command: Run, tmp_path: Path, plugged: Any, install: Install
) -> None:
    """A classifier reads it in rows, one per document, as it does its calibration text."""
    saved(tiny("distilbert", num_labels=2), tmp_path / "model")
    words = [f"w{number}" for number in range(12)]
    write_sst2(tmp_path, [f"w30 {word} w20" for word in words], [f"w30 {word} w21" for word in words])
    tokenizer, seen, drawn = tiny_tokenizer(), list[str](), list[str]()

    class Reading(Healer):
        """Keeps what it reads."""

        name = "reading"
        reads_further = True

        def heal(self, case: Case) -> list[Repair]:
            for texts, batches in ((seen, case.further), (drawn, [*case.batches, *case.held_out])):
                texts.extend(
                    tokenizer.decode(row, skip_special_tokens=True) for batch in batches for row in batch["input_ids"]
                )
            return [Repair(gap, "nothing") for gap in case.gaps]

    plugged(install("reading", layerimp_healers=lambda: [Reading]))
    task = "layerimp_sst2"
    text = ("--calibration", f"task:{task}", "--samples", 8, "--max-length", 16, "--heal-text", f"task:{task}")
    layerimp_command.done(
        *("run", "--model", tmp_path / "model", *text, "--data-dir", tmp_path, "--tasks", task, "--count", 1),
        *("--scorer", "block-influence", "--no-baselines", "--heal", "reading"),
    )
    assert (
        len(seen) == (len(words) - 8) // 4
    )  # half of the others are kept for fidelity, and half of the rest to judge by
    assert set(seen) < {f"w30 {word} w20" for word in words} - set(drawn)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the text file '{file}' does not exist"),
        ("{{}}\n", "{file}, line 1: no field 'text'"),
        ("", "{file} is empty"),
        ('{{"text": "too short"}}\n', "the further text {file} fills no row of 16 tokens beyond the documents"),
    ],
)
def test_further_text_that_cannot_be_read(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "more.jsonl"
    if content is not None:
        file.write_text(content.format())
    output = tmp_path / "out"
    err = layerimp_command.refused(*command, "--heal", "distill", "--heal-text", file, "--output", output)
    assert said.format(file=file) in err.splitlines()[-1]
    assert not output.exists()


def test_further_text_may_hold_no_document_of_a_task(
    layerimp_command: Run, command: tuple[Any, ...], tmp_path: Path, task: Path
) -> None:
    asked = [json.loads(line) for line in (task.parent / "docs.jsonl").read_text().splitlines()]
    file = written(tmp_path / "more.jsonl", "something else " * 8, next(iter(asked[0].values())))
    code, _, err = layerimp_command(*command, "--heal", "distill", "--heal-text", file)
    assert (code, "shares 1 of its 2 documents with the tasks" in err) == (2, True), err
