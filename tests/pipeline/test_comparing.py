"""`layerimp compare`: models of any origin beside an intact one, against naive computations."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.heard import Heard
from support.int8 import quantise
from support.mood import Run
from support.tiny import saved, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

import layerimp
from layerimp.calibration.documents import Reader
from layerimp.calibration.rows import RowFormat
from layerimp.calibration.sampling import Corpus, read_corpus
from layerimp.calibration.splits import for_fidelity
from layerimp.checkpoint.record import FILE, read_record
from layerimp.report.results.compared import ModelComparison
from layerimp.testing import tiny_tokenizer

PART = ("--max-length", 48, "--set", "fidelity.rows=4", "--set", "fidelity.new_tokens=4", "--set", "fidelity.prompts=3")


@pytest.fixture(scope="module")
def calibration_file(calibration_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents that are long enough for a prompt: each joins two of those that other tests use."""
    lines = [json.loads(line)["text"] for line in calibration_file.read_text().splitlines()]
    path = tmp_path_factory.mktemp("long") / "calibration.jsonl"
    joined = (json.dumps({"text": f"{document} {following}"}) for document, following in pairwise(lines))
    path.write_text("".join(f"{line}\n" for line in joined))
    return path


@pytest.fixture(scope="module")
def small(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model without block 2."""
    directory = tmp_path_factory.mktemp("small") / "small"
    model, tokenizer = layerimp.load(model_dir)
    layerimp.prune(model, [2]).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


Compare = Callable[..., ModelComparison]


def corpus_of(model: Path, text: Path) -> Corpus:
    """The documents of a text, in rows of 48 tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    return read_corpus(str(text), Reader("text"), RowFormat(tokenizer, 48, 8, "windows"), 64)


@pytest.fixture
def compared(layerimp_command: Run, model_dir: Path, calibration_file: Path) -> Compare:
    """Compares models with the tiny one."""

    def compare(*models: object, text: Path | None = calibration_file) -> ModelComparison:
        source = () if text is None else ("--text", text)
        printed, _ = layerimp_command.done("compare", model_dir, *models, *source, *PART, "--json")
        return ModelComparison.model_validate_json(printed)

    return compare


@torch.no_grad()
def test_every_number_is_that_of_a_loop_over_tokens(
    compared: Compare, model_dir: Path, small: Path, calibration_file: Path
) -> None:
    comparison = compared(small)
    rows = for_fidelity(corpus_of(model_dir, calibration_file), 4).rows
    before, after = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (model_dir, small))
    values, agreed = [], []
    for row in rows:
        p, q = (model(torch.tensor([row])).logits[0].double().log_softmax(-1) for model in (before, after))
        for place in range(len(row) - 1):
            values.append(sum(math.exp(a) * (a - b) for a, b in zip(p[place].tolist(), q[place].tolist(), strict=True)))
            agreed.append(int(p[place].argmax()) == int(q[place].argmax()))
    fidelity = comparison.fidelity["small"]
    assert fidelity.predictions == len(values)
    assert fidelity.divergence is not None
    assert fidelity.divergence.mean == pytest.approx(sum(values) / len(values), rel=1e-4)
    assert fidelity.divergence.max == pytest.approx(max(values), rel=1e-3)
    assert fidelity.agreement == sum(agreed) / len(agreed)
    assert comparison.text.rows == 4
    assert (comparison.intact.size.blocks, comparison.models["small"].size.blocks) == (4, 3)


def test_a_copy_is_no_distance_away(compared: Compare, model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "copy")
    (fidelity,) = compared(tmp_path / "copy").fidelity.values()
    assert fidelity.divergence is not None
    assert fidelity.divergence.max < 1e-6
    assert fidelity.agreement == 1
    assert fidelity.generation is not None
    assert fidelity.generation.same_tokens == 4


def test_quantised_weights_are_measured(compared: Compare, model_dir: Path, small: Path, tmp_path: Path) -> None:
    """Beside a pruned model, and with the bytes that are in the files."""
    directory = quantise(model_dir, tmp_path / "int8")
    comparison = compared(directory, small)
    ours, theirs = (comparison.fidelity[label].divergence for label in ("int8", "small"))
    assert ours is not None
    assert theirs is not None
    assert 0 < ours.mean < theirs.mean / 10
    size, whole = comparison.models["int8"].size, comparison.intact.size
    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    assert size.bytes == pytest.approx(stored, rel=0.2)
    assert size.bytes < whole.bytes


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_the_dtype_of_the_intact_model_is_its_own(
    model_dir: Path, calibration_file: Path, tmp_path: Path, dtype: str | None
) -> None:
    """Others compute in the stored dtype or in the requested one, and their bytes are those in their files."""
    half, heard = saved(tiny("llama", dtype=torch.bfloat16), tmp_path / "half"), Heard()
    recipe = layerimp.Recipe.model_validate(
        {
            "model": str(half),
            "dtype": dtype,
            "calibration": {"source": str(calibration_file), "max_length": 48},
            "evaluators": {"fidelity": {"name": "fidelity", "options": {"rows": 2, "prompts": 0}}},
        }
    )
    comparison = layerimp.compare(recipe, {"wide": str(model_dir)}, progress=heard)
    intact, wide = comparison.intact, comparison.models["wide"]
    assert (intact.dtype, wide.dtype) == ("bfloat16", dtype or "float32")
    assert sum("are rounded to" in line for line in heard.lines) == (dtype is not None)
    assert wide.size.bytes == 2 * intact.size.bytes == 4 * wide.size.parameters
    assert comparison.request["dtype"] == dtype


def test_tasks_are_compared_document_by_document(
    layerimp_command: Run, model_dir: Path, small: Path, task: Path, calibration_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("compare", model_dir, f"less={small}", "--text", calibration_file, *PART, "--tasks", task)
    printed, _ = layerimp_command.done(*command, "--output", out)
    comparison = ModelComparison.model_validate_json((out / "comparison.json").read_text())
    before, after = (model.metrics["mood"]["acc"] for model in (comparison.intact, comparison.models["less"]))
    difference = comparison.models["less"].differences["mood"]["acc"]
    assert difference.mean == pytest.approx(after.value - before.value)
    assert after.flips is not None
    assert after.flips.to_right - after.flips.to_wrong == pytest.approx(difference.mean * 12)
    for word in ("how far from tiny-llama", "divergence", "copying", "flips", "less: ", "original: "):
        assert word in printed
    page = (out / "report.html").read_text()
    assert "What they write" not in page
    assert "what they write" in page
    assert str(tmp_path) not in page
    assert layerimp_command(*command, "--output", out)[0] == 2
    assert layerimp_command(*command, "--output", out, "--overwrite")[0] == 0


def test_the_text_is_what_the_run_kept_apart(
    compared: Compare, layerimp_command: Run, model_dir: Path, calibration_file: Path, tmp_path: Path
) -> None:
    text = ("--calibration", calibration_file, "--samples", 8, "--max-length", 16)
    layerimp_command.done(
        *("prune", "--model", model_dir, "--scorer", "depth", "--count", 1, *text, "--output", tmp_path / "out")
    )
    pruned = tmp_path / "out" / "checkpoints" / "depth"
    record = json.loads((pruned / FILE).read_text())
    record["fidelity_text"]["documents"] = " ".join(record["fidelity_text"]["documents"].split()[-5:])
    (pruned / FILE).write_text(json.dumps(record))
    comparison = compared(pruned, text=None)
    kept = record["fidelity_text"]["documents"].split()
    expected = for_fidelity(corpus_of(model_dir, calibration_file), 4, only=kept)
    assert comparison.text.source == record["fidelity_text"]["source"] == str(calibration_file)
    assert comparison.text.fingerprint == expected.fingerprint
    assert comparison.notes == []
    (pruned / FILE).unlink()
    unknown = compared(pruned)
    assert unknown.text.fingerprint == for_fidelity(corpus_of(model_dir, calibration_file), 4).fingerprint
    assert unknown.text.fingerprint != comparison.text.fingerprint
    said = "no record says whether depth was made with the text that fidelity is measured on"
    assert unknown.notes == [said]


def test_of_a_data_set_as_much_is_read_as_the_run_read(
    compared: Compare, layerimp_command: Run, model_dir: Path, tmp_path: Path
) -> None:
    """`compare` draws no rows, and would read less of it."""
    (tmp_path / "texts").mkdir()
    file = tmp_path / "texts" / "train.jsonl"
    random.seed(0)
    documents = (" ".join(f"w{random.randrange(40)}" for _ in range(80)) for _ in range(1400))
    file.write_text("".join(f"{json.dumps({'text': document})}\n" for document in documents))
    text = ("--calibration", file.parent, "--samples", 128, "--max-length", 48)
    layerimp_command.done(
        *("prune", "--model", model_dir, "--scorer", "depth", "--count", 1, *text, "--output", tmp_path / "out")
    )
    pruned = tmp_path / "out" / "checkpoints" / "depth"
    record = read_record(pruned)
    assert record is not None
    assert record.fidelity_text is not None
    expected = for_fidelity(corpus_of(model_dir, file), 4, only=record.fidelity_text.documents)
    comparison = compared(pruned, text=None)
    assert comparison.text.fingerprint == expected.fingerprint
    assert comparison.notes == []


def test_a_relative_name_of_the_kept_text_is_that_text(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(calibration_file.parent)
    named = ("--set", f"fidelity.text={calibration_file.name}")
    text = ("--calibration", calibration_file.name, "--samples", 8, "--max-length", 16, *named)
    method = ("--scorer", "depth", "--heal", "none", "--count", 1, "--tasks", "none", "--no-baselines")
    layerimp_command.done("run", "--model", model_dir, *method, *text, "--output", tmp_path / "out")
    pruned = tmp_path / "out" / "checkpoints" / "depth"
    printed, _ = layerimp_command.done("compare", model_dir, pruned, *PART, *named, "--json")
    assert ModelComparison.model_validate_json(printed).notes == []


def test_in_python_models_have_labels(model_dir: Path, small: Path, calibration_file: Path) -> None:
    recipe = layerimp.Recipe.model_validate(
        {
            "model": str(model_dir),
            "calibration": {"source": str(calibration_file), "max_length": 48},
            "evaluators": {"fidelity": {"name": "fidelity", "options": {"rows": 2, "prompts": 0}}},
        }
    )
    label = "depth+linear"  # as layerimp names a healed checkpoint
    comparison = layerimp.compare(recipe, {label: str(small)})
    assert comparison.models.keys() == comparison.fidelity.keys() == {label}
    assert comparison.fidelity[label].generation is None


def test_another_tokenizer_is_refused_in_one_line(
    layerimp_command: Run, model_dir: Path, tmp_path: Path, calibration_file: Path
) -> None:
    shutil.copytree(model_dir, tmp_path / "other")
    tokenizer = tiny_tokenizer()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    first, second = list(content["model"]["vocab"])[10:12]
    vocabulary = content["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(content))
    err = layerimp_command.refused("compare", model_dir, tmp_path / "other", "--text", calibration_file)
    assert err.count("\n") == 1
    assert "other has another tokenizer than" in err
    assert f"the token {min(first, second)!r} is" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name the intact model and at least one other: layerimp compare INTACT SMALL"),
        (("{small}", "{small}"), "two models are called 'small'; give them labels: LABEL=MODEL"),
        (("a={small}", "a={small}"), "two models are called 'a'; give them labels: LABEL=MODEL"),
        (("original={small}",), "'original' is what the intact model is called; give "),
        (("a=b=c",), "cannot load the tokenizer of the model 'b=c': no directory here has that name"),
        (("{small}", "--evaluator", "harness"), "add --evaluator fidelity"),
        (("{small}", "--evaluator", "fidelity", "--evaluator", "footprint"), "'footprint' measures costs"),
        (("{small}", "--text", "nothing.jsonl"), "the text file 'nothing.jsonl' does not exist"),
        (("{small}", "--max-length", "100000"), "max_length 100000 is beyond the model's"),
    ],
)
def test_bad_input_is_one_line(
    layerimp_command: Run, model_dir: Path, small: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = (argument.replace("{small}", str(small)) for argument in arguments)
    err = layerimp_command.refused("compare", model_dir, *given)
    assert said in err.splitlines()[-1]


def test_a_model_with_fewer_positions_is_refused_by_name(
    layerimp_command: Run, model_dir: Path, calibration_file: Path, tmp_path: Path
) -> None:
    saved(tiny("llama", max_position_embeddings=16), tmp_path / "short")
    err = layerimp_command.refused("compare", model_dir, tmp_path / "short", "--text", calibration_file, *PART)
    assert "short reads 16 tokens at most, and the text has rows of 48: --max-length" in err


def test_what_was_asked_can_be_read(compared: Compare, small: Path) -> None:
    request: dict[str, Any] = compared(small).request
    assert request["models"] == {"small": str(small)}
    assert request["calibration"]["max_length"] == 48
