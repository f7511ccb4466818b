"""`layerimp heal`, and the record in each checkpoint that it reads."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from layerimp_distill import Distill
from rich.filesize import decimal
from safetensors.torch import load_file
from support.mood import Run, changed, done_once
from support.sst2 import write_sst2
from support.tiny import saved, tiny
from transformers import AutoModelForCausalLM, PreTrainedModel

import layerimp
from layerimp.blocks import BlockStack
from layerimp.cache.directory import entries
from layerimp.calibration.sampling import document_hash
from layerimp.checkpoint.record import FILE, Record, read_record
from layerimp.errors import InputError
from layerimp.healing import Healed, Teaching
from layerimp.healing.engine import heal_beside
from layerimp.pipeline import heal_checkpoint, memory
from layerimp.pipeline import run as runs
from layerimp.pipeline.dry_run import DryRun


@pytest.fixture(scope="module")
def pruned_once(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `layerimp prune` without blocks 1, 2."""
    place = tmp_path_factory.mktemp("pruned")
    done_once(place, "prune", "--model", model_dir, "--blocks", "2,1", "--output", place / "out")
    return place / "out"


@pytest.fixture
def pruned(pruned_once: Path, tmp_path: Path) -> Path:
    """A checkpoint without blocks 1, 2."""
    return Path(shutil.copytree(pruned_once, tmp_path / "pruned")) / "checkpoints" / "blocks"


@pytest.fixture
def text(calibration_file: Path) -> tuple[Any, ...]:
    return ("--calibration", calibration_file, "--samples", 16, "--max-length", 16)


def test_a_checkpoint_says_what_it_was_made_from(pruned: Path, model_dir: Path) -> None:
    files = tuple(sorted(path.name for path in pruned.iterdir()))
    assert read_record(pruned) == Record(source=str(model_dir), num_blocks=4, removed=(1, 2), files=files)
    assert json.loads((pruned / FILE).read_text())["schema_version"] == "layerimp.checkpoint/1"


@pytest.mark.parametrize("command", ["heal", "run", "prune"])
def test_a_classifier_is_healed_on_text_of_its_own(layerimp_command: Run, tmp_path: Path, command: str) -> None:
    model, more = saved(tiny("bert"), tmp_path / "model"), ["--count", 1, "--heal", "linear"]
    if command == "heal":
        layerimp_command.done("prune", model, "--blocks", 1, "--output", tmp_path / "pruned")
        model, more = tmp_path / "pruned" / "checkpoints" / "blocks", []
    err = layerimp_command.refused(command, model, *more, "--output", tmp_path / "out")
    assert err.startswith(f"layerimp: {model} is a classifier: name text of the kind that it reads")
    assert err.count("\n") == 1


def test_minutes_limit_the_training(
    layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(Distill, "heal", lambda self, case: given.append(self.config) or self._first.heal(case))
    command = ("heal", pruned, *text, "--output", tmp_path / "out")
    options = ("--healer", "distill", "--set", "distill.first=linear", "--minutes", 0.5)
    layerimp_command.done(*command, *options)
    assert (given[0].minutes, given[0].steps) == (0.5, None)
    for healer, minutes, why in (("linear", 1, "no healer trains (linear)"), ("distill", 0, "trains nothing")):
        err = layerimp_command.refused(*command, "--healer", healer, "--minutes", minutes)
        assert why in err
    for given_twice in ((*command, *options), ("run", "--heal", "distill", "--minutes", 1)):
        err = layerimp_command.refused(*given_twice, "--set", "distill.minutes=2")
        assert "given twice: --minutes, and --set distill.minutes=2" in err


def test_a_checkpoint_is_healed(
    layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def healed_beside(intact: BlockStack, ours: BlockStack, *args: Any, **more: Any) -> Healed:
        assert set(ours.model.parameters()) < set(intact.model.parameters()), "no weight is in memory twice"
        return heal_beside(intact, ours, *args, **more)

    monkeypatch.setattr(heal_checkpoint, "heal_beside", healed_beside)
    out = tmp_path / "healed"
    command = ("heal", "--model", pruned, "--healer", "linear", "--set", "linear.ridges=[0.1, 1]", *text)
    printed, _ = layerimp_command.done(*command, "--output", out, "--json")
    document = json.loads(printed)
    assert document["removed"] == [1, 2]
    assert document["options"]["ridges"] == [0.1, 1.0]
    (gap,) = document["gaps"]
    assert gap["gap"] == "blocks 1-2"
    assert set(document["loss"]) == {"intact", "pruned", "healed"}
    record = read_record(out)
    assert record is not None
    assert record.healers == ("linear",)
    healed = AutoModelForCausalLM.from_pretrained(out)
    before = AutoModelForCausalLM.from_pretrained(pruned).state_dict()
    changed = [path for path, value in healed.state_dict().items() if not torch.equal(value, before[path])]
    assert sorted(changed) == sorted(document["changed"])
    assert "## Healed" in (out / "README.md").read_text()
    printed, _ = layerimp_command.done(*command, "--output", out, "--overwrite")
    assert "on the held-out rows (nats per prediction: intact" in printed
    assert f"checkpoint: {out}" in printed
    (out / "notes.txt").write_text("mine")
    err = layerimp_command.refused(*command, "--output", out, "--overwrite")
    assert "it holds 'notes.txt', which layerimp did not write" in err


def test_a_healed_checkpoint_is_healed_further(
    layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path
) -> None:
    """A factor makes the first one; what is healed again counts from the pruned model, and both cards say so."""
    model, tokenizer = layerimp.load(pruned)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").mul_(0.5)
    layerimp.save(model, tokenizer, tmp_path / "first")
    shutil.copy(pruned / FILE, tmp_path / "first")
    command = ("heal", "--model", tmp_path / "first", "--healer", "rescale", *text, "--output", tmp_path / "second")
    printed, _ = layerimp_command.done(*command, "--json")
    document = json.loads(printed)
    assert list(document["loss"]) == ["intact", "pruned", "healed_before", "healed"]
    losses = document["loss"]
    lost = losses["pruned"] - losses["intact"]
    assert document["recovered"] == (None if lost <= 0 else pytest.approx((losses["pruned"] - losses["healed"]) / lost))
    _, printed, _ = layerimp_command("heal", "--model", pruned, *text, "--output", tmp_path / "again", "--json")
    assert losses["pruned"] == pytest.approx(json.loads(printed)["loss"]["pruned"])
    assert f"healed before {losses['healed_before']:.3f}" in (tmp_path / "second" / "README.md").read_text()


def test_an_interrupted_training_says_how_it_goes_on(
    layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step is over, there is nothing to go on from, and nothing is promised."""
    command = ("heal", "--model", pruned, "--healer", "distill", "--set", "distill.steps=3", *text)
    calls, last = 0, 1

    def interrupted(self: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt
        return real(self, batch)

    real = Teaching.divergence
    monkeypatch.setattr(Teaching, "divergence", interrupted)
    code, _, err = layerimp_command(*command, "--output", tmp_path / "out")
    assert (code, err.splitlines()[-1]) == (130, "layerimp: interrupted; nothing is left half-written")
    calls, last = 0, 2
    code, _, err = layerimp_command(*command, "--output", tmp_path / "out")
    (kept,) = entries("unfinished")
    assert (code, err.splitlines()[-1]) == (
        130,
        f"layerimp: interrupted; the same command goes on from the last saved state, which takes {decimal(kept.size)} "
        "in the cache (layerimp cache --clear unfinished removes it)",
    )
    assert not (tmp_path / "out").exists()
    _, err = layerimp_command.done(*command, "--output", tmp_path / "out")
    assert "goes on with the training that was interrupted after 1 step" in err
    assert entries("unfinished") == []


def test_rows_of_a_task_come_from_a_directory(layerimp_command: Run, pruned: Path, tmp_path: Path) -> None:
    """As in the commands that make what `heal` repairs, without the hub."""
    write_sst2(tmp_path, [f"the cat was {number} and it was big" for number in range(40)], ["the cat"] * 2)
    text = ("--calibration", "task:layerimp_sst2", "--data-dir", tmp_path, "--samples", 16, "--max-length", 16)
    code, out, err = layerimp_command("heal", pruned, *text, "--output", tmp_path / "out")
    assert code == 0, err
    assert "tokens of task:layerimp_sst2\n" in out


def test_without_a_record_the_blocks_are_named(
    layerimp_command: Run,
    pruned: Path,
    model_dir: Path,
    text: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The card says how, in a command that runs in a folder with the model and the text."""
    (pruned / FILE).unlink()
    (pruned / "README.md").write_bytes("caf\u00e9".encode("latin-1"))
    command = ("heal", "--model", pruned, *text, "--output", tmp_path / "healed")
    for absent in (tmp_path / "absent", "absent"):
        code, _, err = layerimp_command("heal", "--model", absent, *command[3:])
        assert (code, f"the model directory '{absent}' does not exist" in err) == (2, True)
    code, _, err = layerimp_command(*command)
    assert (code, "no layerimp.json that says which blocks are gone; name them with --removed" in err) == (2, True)
    code, _, err = layerimp_command(*command, "--removed", "1,2")
    assert (code, "no layerimp.json that says what it was made from" in err) == (2, True)
    assert not (tmp_path / "healed").exists()
    layerimp_command.done(
        *(*command, "--removed", "1,2", "--teacher", model_dir, "--healer", "rescale"),
        *("--batch-size", 2, "--dtype", "float64"),
    )
    card = (tmp_path / "healed" / "README.md").read_text()
    (words,) = re.findall(r"^layerimp heal .*$", card, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for path in (pruned, model_dir, Path(text[1])):
        (tmp_path / path.name).symlink_to(path)
    layerimp_command.done(*shlex.split(words)[1:])
    weights = (load_file(tmp_path / out / "model.safetensors") for out in ("healed", "out"))
    torch.testing.assert_close(*weights)
    assert read_record(tmp_path / "healed") == Record(
        source=str(model_dir),
        num_blocks=4,
        removed=(1, 2),
        healers=("rescale",),
        files=tuple(sorted(path.name for path in (tmp_path / "healed").iterdir())),
    )


def test_the_card_names_what_was_trained_on(
    layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path
) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": f"{number} the cat was big and it ran"}) + "\n" for number in range(9)))
    options = ("--healer", "distill", "--heal-text", more, "--set", "distill.steps=40", "--set", "distill.first=null")
    layerimp_command.done("heal", pruned, *text, *options, "--output", tmp_path / "healed")
    card = (tmp_path / "healed" / "README.md").read_text()
    names = "".join(document_hash(json.loads(line)["text"]) for line in more.read_text().splitlines())
    read = hashlib.sha256(names.encode()).hexdigest()
    assert f"- **Training text:** 9 documents of more.jsonl (SHA-256 of their hashes `{read}`)" in card


def test_what_a_run_kept_for_fidelity_is_never_healed_on(
    layerimp_command: Run,
    model_dir: Path,
    calibration_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither by the run nor by a later `heal` with other draws and the same file as further text."""
    read: list[set[str]] = []
    kept: set[str] = set()

    def reading(true: Any) -> Any:
        def heal_beside(*arguments: Any, further: Any, judging: Any, **options: Any) -> Any:
            assert judging.documents
            assert not judging.documents & (arguments[3].documents | further.documents | kept)
            read.append(set(arguments[3].documents) | set(further.documents) | judging.documents)
            return true(*arguments, further=further, judging=judging, **options)

        return heal_beside

    for module in (runs, heal_checkpoint):
        monkeypatch.setattr(module, "heal_beside", reading(module.heal_beside))
    text = ("--calibration", calibration_file, "--samples", 4, "--max-length", 8, "--heal-text", calibration_file)
    train = ("--set", "distill.steps=1")
    command = ("run", "--model", model_dir, *text, *train, "--heal", "distill", "--tasks", "none", "--no-baselines")
    layerimp_command.done(*command, "--scorer", "depth", "--count", 1, "--output", tmp_path / "out")
    pruned, healed = (tmp_path / "out" / "checkpoints" / name for name in ("depth", "depth+distill"))
    record = read_record(pruned)
    assert record is not None
    assert record.fidelity_text is not None
    assert record.fidelity_text.source == str(calibration_file)
    kept |= set(record.fidelity_text.documents)
    assert len(json.loads((pruned / FILE).read_text())["fidelity_text"]["documents"].split(" ")) == len(kept) > 1
    command = ("heal", "--healer", "distill", *text, *train, "--seed", 5)
    fewer = ("--set", "fidelity.rows=1")  # leaves rows of the kept documents unread
    for number, (model, more) in enumerate(((pruned, ()), (healed, ()), (pruned, fewer))):
        _, err = layerimp_command.done(*command, *more, "--model", model, "--output", tmp_path / str(number))
        assert "may have been made with" not in err
        assert read_record(tmp_path / str(number)).fidelity_text == record.fidelity_text  # type: ignore[union-attr]
    everything = {document_hash(json.loads(line)["text"]) for line in calibration_file.read_text().splitlines()}
    assert read == [everything - kept] * 4
    (pruned / FILE).write_text(record.model_copy(update={"fidelity_text": None}).model_dump_json())
    _, err = layerimp_command.done(*command, "--model", pruned, "--output", tmp_path / "unknown")
    assert "may have been made with the text that its fidelity is measured on: its record names no such text" in err


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"hidden_size": 64}, "the pruned model is 32 wide, and the intact one 64"),
        ({"vocab_size": 103}, "the pruned model has 97 token ids, and the intact one 103"),
        ({"num_hidden_layers": 5}, "has 2 blocks in place of 3"),
        ({"name": "mistral"}, "is a LlamaForCausalLM, and the intact one a MistralForCausalLM"),
    ],
    ids=str,
)
def test_another_teacher_is_refused(
    layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path, others: dict[str, Any], said: str
) -> None:
    saved(tiny(**others), tmp_path / "other")
    out = tmp_path / "healed"
    err = layerimp_command.refused("heal", "--model", pruned, "--teacher", tmp_path / "other", *text, "--output", out)
    assert said in err.splitlines()[-1]
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--healer", "linea"), "unknown healer 'linea'. Did you mean 'linear'?"),
        (("--set", "rescale.shares=[1]"), "there are only 'linear' and 'fidelity' here"),
        (("--set", "ridges"), "--set takes LABEL.OPTION=VALUE, such as linear.ridges=[0.1]"),
        (("--removed", "one"), "--removed takes blocks such as 5,8-10, got 'one'"),
        (("--removed", "1/2"), "'1/2' is no block; a block is a whole number, and only whole blocks can be removed"),
        (("--removed", "1,9"), "removed block 9 does not exist: the model has blocks 0 to 3"),
        (("--samples", 2), "at least 3 rows"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(
    layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path, options: tuple[Any, ...], said: str
) -> None:
    err = layerimp_command.refused("heal", "--model", pruned, *changed(text, *options), "--output", tmp_path / "healed")
    assert said in err.splitlines()[-1]
    assert not (tmp_path / "healed").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"source": "/gone/model"}, "was made from /gone/model, says its layerimp.json, and that is not there; name"),
        ({"removed": ["a"]}, "layerimp.json is no record of a checkpoint: 'a' is no block"),
        ({"removed": [1, 1]}, "layerimp.json is no record of a checkpoint: removed block 1 is named twice"),
        ({"removed": [7]}, "layerimp.json is no record of a checkpoint: removed block 7 does not exist"),
        ({"removed": [1]}, "the pruned model has 2 blocks in place of 3 (4 without 1): it is another model"),
    ],
    ids=str,
)
def test_a_record_that_is_wrong_is_one_line(
    layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    shutil.copytree(pruned, tmp_path / "copy")
    record = json.loads((pruned / FILE).read_text())
    (tmp_path / "copy" / FILE).write_text(json.dumps(record | changed))
    out = tmp_path / "healed"
    code, _, err = layerimp_command("heal", "--model", tmp_path / "copy", *text, "--output", out)
    assert (code, said in err.splitlines()[-1]) == (2, True), err
    assert not out.exists()


def test_a_nan_writes_nothing(layerimp_command: Run, pruned: Path, text: tuple[Any, ...], tmp_path: Path) -> None:
    model, tokenizer = layerimp.load(pruned)
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.down_proj.weight").fill_(torch.nan)
    model.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")
    (tmp_path / "broken" / FILE).write_text((pruned / FILE).read_text())
    err = layerimp_command.refused("heal", "--model", tmp_path / "broken", *text, "--output", tmp_path / "healed")
    assert "NaN" in err.splitlines()[-1]
    assert not (tmp_path / "healed").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"source": "x"}',
        '{"schema_version": "layerimp.checkpoint/9"}',
        '{"source": "x", "num_blocks": 4, "removed": [1]}',
        '{"schema_version": "layerimp.checkpoint/1", "source": "x", "num_blocks": true, "removed": []}',
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=r"layerimp.json is no record of a checkpoint"):
        read_record(tmp_path)


def test_a_dry_run_says_what_would_be_healed_and_reads_no_weights(
    layerimp_command: Run,
    pruned: Path,
    model_dir: Path,
    text: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["heal", "--model", pruned, *text, "--output", tmp_path / "out"]
    with monkeypatch.context() as patched:
        patched.setattr(PreTrainedModel, "from_pretrained", None)
        patched.setattr(memory, "free_bytes", lambda _device: 10**9)
        out, err = layerimp_command.done(*command, "--dry-run", "--json")
        assert "by default" not in err, "heal takes no scorer"
        shown, _ = layerimp_command.done(*command, "--healer", "distill", "--dry-run")
        code, _, err = layerimp_command(*command, "--removed", 1, "--dry-run")
        assert (code, "has 2 blocks in place of 3" in err) == (2, True)
    assert not (tmp_path / "out").exists()
    dry_run = DryRun.model_validate_json(out, strict=True)
    (work,) = dry_run.models.values()
    assert [stage.name for stage in work.stages] == ["heal by linear", "compare by fidelity"]
    assert all(stage.seconds is not None and stage.seconds > 0 for stage in work.stages)
    assert "heal by distill" in shown
    out, _ = layerimp_command.done(*command, "--json")
    done = json.loads(out)
    assert work.model == done["model"]
    (most,) = re.findall(r"text: at most [\d,]+ rows of .*, ([\d,]+) tokens", "\n".join(dry_run.notes))
    assert int(most.replace(",", "")) >= done["calibration"]["tokens"]
    counts = [
        sum(parameter.numel() for parameter in AutoModelForCausalLM.from_pretrained(directory).parameters())
        for directory in (model_dir, tmp_path / "out")
    ]
    size = work.sizes["parameters"]
    assert [size.original, size.least] == counts
    assert work.memory.weights == 4 * sum(counts)
    for words in ("gaps: blocks 1, 2", "distill: all blocks learn, 4 rows a step: "):
        assert words in " ".join(shown.split())
    free = decimal(10**9 - 4 * counts[0])
    assert f"where {free} are free" in " ".join(shown.split()), "the pruned model shares its weights"
    code, _, err = layerimp_command(*command, "--dry-run")
    assert (code, "exists" in err) == (2, True)
    other = ("--healer", "distill", "--set", "distill.steps=1", "--output", tmp_path / "other")
    _, err = layerimp_command.done("heal", "--model", pruned, *text, *other)
    ahead, during = (
        re.findall(r"blocks learn, 4 rows a step: .*?, where", " ".join(each.split())) for each in (shown, err)
    )
    assert ahead == during != [], "in the bytes of the dtype that the models compute in"
