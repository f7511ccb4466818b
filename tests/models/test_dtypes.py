"""What a model computes in, where nobody says, and what its checkpoints are stored in."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.by_label import by_label
from support.heard import Heard
from support.mood import Run
from support.tiny import tiny
from support.weight_reads import WeightReads
from transformers import AutoModelForCausalLM

import layerimp
from layerimp.checkpoint.saving import as_stored
from layerimp.errors import OptionError
from layerimp.models import loading, stored_bytes
from layerimp.models.dtypes import CPU_HALF_VARIABLE, is_native, remember_stored, stored_dtype
from layerimp.models.fingerprint import model_fingerprint
from layerimp.testing import tiny_tokenizer

HALF = [torch.bfloat16, torch.float16]


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without 16-bit arithmetic."""
    monkeypatch.setenv(CPU_HALF_VARIABLE, "float32")


@pytest.fixture(params=HALF, ids=str)
def half_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint in 16 bits."""
    tiny("llama", dtype=request.param).save_pretrained(tmp_path / "half")
    tiny_tokenizer().save_pretrained(tmp_path / "half")
    return tmp_path / "half"


def test_the_variable_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for forced, expected in (("stored", True), ("float32", False)):
        monkeypatch.setenv(CPU_HALF_VARIABLE, forced)
        assert [is_native(dtype) for dtype in HALF] == [expected] * 2
        assert is_native(torch.float32)
    monkeypatch.setenv(CPU_HALF_VARIABLE, "both")
    with pytest.raises(OptionError, match="LAYERIMP_CPU_HALF is 'both'; it can be 'stored' or 'float32'"):
        is_native(torch.bfloat16)


@pytest.mark.parametrize("answer", [True, False])
def test_an_older_torch_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.delenv(CPU_HALF_VARIABLE)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: answer, raising=False)
    assert is_native(torch.bfloat16) == answer


@pytest.mark.parametrize(
    ("machine", "supported", "flags", "expected"),
    [
        ("x86_64", True, {"avx512_bf16": True}, True),
        ("x86_64", True, {"amx_bf16": True}, True),
        ("x86_64", True, {"avx512_f": True}, False),  # oneDNN emulates it
        ("x86_64", False, {"avx512_bf16": True}, False),  # kept from it, as by ONEDNN_MAX_CPU_ISA
        ("aarch64", True, {}, True),
        ("aarch64", False, {}, False),
    ],
)
def test_flags_decide_otherwise(
    monkeypatch: pytest.MonkeyPatch, machine: str, supported: bool, flags: dict[str, bool], expected: bool
) -> None:
    monkeypatch.delenv(CPU_HALF_VARIABLE)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    assert is_native(torch.bfloat16) == expected


def test_as_stored_where_the_cpu_can(half_dir: Path) -> None:
    notes = Heard()
    model, _ = layerimp.load(half_dir, progress=notes)
    assert model.dtype == stored_dtype(model) != torch.float32
    assert notes.lines == []


@pytest.mark.usefixtures("emulated")
def test_float32_stands_in_and_the_checkpoint_is_as_stored(half_dir: Path, tmp_path: Path) -> None:
    notes = Heard()
    model, tokenizer = layerimp.load(half_dir, progress=notes)
    before = load_file(half_dir / "model.safetensors")
    kind = str(before["model.norm.weight"].dtype).removeprefix("torch.")
    assert notes.lines == [
        f"{half_dir} computes in float32, since this CPU only emulates {kind} (--dtype {kind}: as stored)"
    ]
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert stored_bytes(model) == sum(tensor.nbytes for tensor in before.values())
    saved = layerimp.save(layerimp.prune(model, [0]), tokenizer, tmp_path / "pruned")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert json.loads((saved / "config.json").read_text())["dtype"] == kind
    after = load_file(saved / "model.safetensors")
    for name, tensor in after.items():
        place = name.replace("layers.2", "layers.3").replace("layers.1", "layers.2").replace("layers.0", "layers.1")
        assert tensor.dtype == before[place].dtype
        assert torch.equal(tensor, before[place]), name


@pytest.mark.usefixtures("emulated")
def test_where_memory_is_short_it_is_emulated(half_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "free_bytes", lambda _device: 1000)
    notes = Heard()
    model, _ = layerimp.load(half_dir, progress=notes)
    assert model.dtype != torch.float32
    (said,) = notes.lines
    assert "which this CPU only emulates: float32 needs 0.0 GiB, and 0.0 GiB are free" in said


@pytest.mark.usefixtures("emulated")
def test_what_is_asked_for_is_done(half_dir: Path) -> None:
    notes = Heard()
    assert layerimp.load(half_dir, dtype="bfloat16", progress=notes)[0].dtype == torch.bfloat16
    assert not any("emulates" in note for note in notes.lines)


def test_a_named_wider_dtype_is_for_computing(half_dir: Path, tmp_path: Path) -> None:
    stored = load_file(half_dir / "model.safetensors")["model.norm.weight"].dtype
    for dtype in ("float32", "float64"):
        model, _ = layerimp.load(half_dir, dtype=dtype)
        assert stored_dtype(model) == stored != model.dtype
        saved = layerimp.save(model, None, tmp_path / dtype)
        assert {tensor.dtype for tensor in load_file(saved / "model.safetensors").values()} == {stored}


def test_a_named_narrower_dtype_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path / "wide")
    tiny_tokenizer().save_pretrained(tmp_path / "wide")
    notes = Heard()
    model, _ = layerimp.load(tmp_path / "wide", dtype="bfloat16", progress=notes)
    assert stored_dtype(model) == torch.bfloat16
    numbers = sum(tensor.numel() for tensor in load_file(tmp_path / "wide" / "model.safetensors").values())
    assert notes.lines == [
        f"{tmp_path / 'wide'}: {numbers:,} of its numbers are stored in float32, and are rounded to bfloat16; --dtype "
        "float32 keeps them"
    ]
    saved = layerimp.save(model, None, tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(saved / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.usefixtures("emulated")
def test_weights_that_are_wider_than_the_configuration_says_keep_every_bit(half_dir: Path, tmp_path: Path) -> None:
    weights = {name: weight.float() * 1.001 for name, weight in load_file(half_dir / "model.safetensors").items()}
    save_file(weights, half_dir / "model.safetensors", metadata={"format": "pt"})
    model, _ = layerimp.load(half_dir)
    assert stored_dtype(model) == torch.float32
    assert stored_bytes(model) == sum(weight.nbytes for weight in weights.values())
    saved = layerimp.save(model, None, tmp_path / "out")
    assert json.loads((saved / "config.json").read_text())["dtype"] == "float32"
    for name, weight in load_file(saved / "model.safetensors").items():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize(
    ("native", "said"),
    [
        (True, "32 of its numbers are stored in float32, and are rounded"),
        (False, "checkpoints are written in float32, since"),
    ],
)
def test_a_wider_weight_among_others_is_told(
    native: bool, said: str, half_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as norms in float32; it is rounded, as in Transformers, or decides the dtype of checkpoints."""
    weights = load_file(half_dir / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].float() * 1.001
    save_file(weights, half_dir / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setenv(CPU_HALF_VARIABLE, "stored" if native else "float32")
    notes = Heard()
    layerimp.load(half_dir, progress=notes)
    assert sum(said in note for note in notes.lines) == 1
    notes.lines.clear()
    layerimp.load(half_dir, dtype="float32", progress=notes)
    assert notes.lines == []


@pytest.mark.usefixtures("emulated")
def test_weights_that_were_trained_meanwhile_keep_every_bit(half_dir: Path, tmp_path: Path) -> None:
    """Some of them changed and some did not: a file of both would be rounded by whoever loads it."""
    model, _ = layerimp.load(half_dir)
    before = model.config.dtype
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.0001)
    saved = layerimp.save(model, None, tmp_path / "out")
    assert model.config.dtype == before
    reloaded = AutoModelForCausalLM.from_pretrained(saved)
    assert reloaded.dtype == torch.float32
    torch.testing.assert_close(reloaded.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.usefixtures("emulated")
def test_a_configuration_that_names_no_dtype(half_dir: Path) -> None:
    config = json.loads((half_dir / "config.json").read_text())
    (half_dir / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "dtype"}))
    model, _ = layerimp.load(half_dir)
    assert model.dtype == torch.float32
    assert stored_dtype(model) == load_file(half_dir / "model.safetensors")["model.norm.weight"].dtype


def test_metrics_are_kept_apart(half_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = []
    for forced in ("stored", "float32"):
        monkeypatch.setenv(CPU_HALF_VARIABLE, forced)
        fingerprints.append(model_fingerprint(*layerimp.load(half_dir)))
    assert fingerprints[0] != fingerprints[1]


def test_the_starter_computes_in_float32_everywhere() -> None:
    notes = Heard()
    model, _ = layerimp.load("starter", progress=notes)
    assert (model.dtype, stored_dtype(model), notes.lines) == (torch.float32, torch.bfloat16, [])
    assert layerimp.load("starter", dtype="bfloat16")[0].dtype == torch.bfloat16


@pytest.mark.usefixtures("emulated")
def test_a_run_says_what_it_computes_in(
    layerimp_command: Run, half_dir: Path, calibration_file: Path, tmp_path: Path
) -> None:
    text = ("--calibration", calibration_file, "--samples", 4, "--max-length", 16)
    arguments = ("run", "--model", half_dir, "--scorer", "avss", *text)
    code, out, err = layerimp_command(*arguments, "--tasks", "none", "--output", tmp_path / "out", "--json")
    assert code == 0, err
    assert err.count("computes in float32, since this CPU only emulates") == 1
    document = by_label(out)
    kept = load_file(tmp_path / "out" / "checkpoints" / "avss" / "model.safetensors")
    assert document["bytes"]["pruned"]["avss"] == sum(tensor.nbytes for tensor in kept.values())
    assert document["footprint"]["avss"]["bytes"] == document["bytes"]["pruned"]["avss"]
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("kinds", [(), ("BF16",), ("BF16", "F32")], ids=str)
def test_files_in_the_stored_dtype_show_that_it_holds_the_weights(kinds: tuple[str, ...]) -> None:
    model = tiny("llama", dtype=torch.bfloat16).float()
    with WeightReads(model) as reads:
        remember_stored(model, torch.bfloat16, kinds)
    assert stored_dtype(model) == torch.bfloat16
    assert bool(reads.by_path) == (kinds != ("BF16",))


def test_weights_are_converted_and_compared_once() -> None:
    model = tiny("llama", dtype=torch.bfloat16).float()
    remember_stored(model, torch.bfloat16, ["BF16"])
    with WeightReads(model) as reads, as_stored(model):
        assert model.dtype == torch.bfloat16
    assert model.dtype == torch.float32
    assert set(reads.by_path.values()) == {2}
