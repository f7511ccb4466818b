"""Stored metrics are used again only if nothing that can change them has changed."""

from __future__ import annotations

import copy
import importlib
import json
import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from layerimp.blocks.modes import quiet
from layerimp.cache.directory import CACHE_VARIABLE, cache_directory
from layerimp.evaluation.cache import store, stored
from layerimp.evaluation.packing import packed, unpacked
from layerimp.evaluator import Likelihood, Metric, Stratum
from layerimp.models import fingerprint
from layerimp.models.fingerprint import model_fingerprint
from layerimp.testing import tiny_tokenizer

KEY = ("weights", "harness", "limit=3")
METRICS = [
    Metric("sst2", "acc", 0.5, 0.01),
    Metric("wikitext", "word_perplexity", math.inf, None, higher_is_better=False),
]


@pytest.fixture
def directory() -> Path:
    return cache_directory("metrics")


def one_weight(model: Any, tokenizer: Any) -> None:
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[3, 5] += 1e-3


def one_sign(model: Any, tokenizer: Any) -> None:
    with torch.no_grad():
        model.model.norm.weight[0] *= -1


def config_field(model: Any, tokenizer: Any) -> None:
    model.config.rms_norm_eps *= 2


def attention(model: Any, tokenizer: Any) -> None:
    model.set_attn_implementation("eager")


def generation(model: Any, tokenizer: Any) -> None:
    """Generated answers depend on this setting."""
    model.generation_config.repetition_penalty = 1.5


def dtype(model: Any, tokenizer: Any) -> None:
    model.to(torch.float64)


def swapped(model: Any, tokenizer: Any) -> None:
    first, second = model.model.layers[0].mlp, model.model.layers[1].mlp
    model.model.layers[0].mlp, model.model.layers[1].mlp = second, first


def special_token(model: Any, tokenizer: Any) -> None:
    tokenizer.eos_token = "cat"


def new_token(model: Any, tokenizer: Any) -> None:
    tokenizer.add_tokens(["brandnew"])


def no_opening(model: Any, tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = tiny_tokenizer(bos=False).backend_tokenizer.post_processor


CHANGES = (one_weight, one_sign, config_field, attention, generation, dtype, swapped)
CHANGES += (special_token, new_token, no_opening)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_fingerprint_follows(change: Callable[[Any, Any], None]) -> None:
    model, tokenizer = tiny("llama", attention="sdpa"), tiny_tokenizer()
    before = model_fingerprint(model, tokenizer)
    assert model_fingerprint(model, tokenizer) == before
    change(model, tokenizer)
    assert model_fingerprint(model, tokenizer) != before


def test_the_fingerprint_follows_code_that_comes_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files beside that of the model count, since one may import the others."""
    for folder, scale in (("first", 1.0), ("again", 1.0), ("other", 0.5)):
        package = tmp_path / folder / "transformers_modules"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "scale.py").write_text(f"SCALE = {scale}\n")
        (package / "own.py").write_text(
            "from transformers import LlamaForCausalLM\n\n\nclass Own(LlamaForCausalLM):\n    pass\n"
        )
    fingerprints = []
    for folder in ("first", "again", "other"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        for name in ("transformers_modules", "transformers_modules.own"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        model = tiny("llama")
        model.__class__ = importlib.import_module("transformers_modules.own").Own
        fingerprints.append(model_fingerprint(model, None))
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_tied_weight_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    class Digest:
        def __init__(self, **_: Any) -> None: ...

        def update(self, data: Any) -> None:
            hashed.append(memoryview(data).nbytes)

        def hexdigest(self) -> str:
            return ""

    model = tiny("llama", tie_word_embeddings=True)
    assert len(list(model.parameters())) < len(model.state_dict())
    monkeypatch.setattr(fingerprint, "hashlib", SimpleNamespace(blake2b=Digest))
    model_fingerprint(model, None)
    table = model.lm_head.weight.nbytes
    assert hashed.count(table) == 1


def test_equal_models_share_a_fingerprint() -> None:
    expected = model_fingerprint(tiny("llama"), tiny_tokenizer())
    assert model_fingerprint(tiny("llama"), tiny_tokenizer()) == expected
    assert model_fingerprint(copy.deepcopy(tiny("llama")), tiny_tokenizer()) == expected
    assert model_fingerprint(tiny("llama"), None) != expected


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_every_dtype_can_be_hashed(kind: torch.dtype) -> None:
    assert model_fingerprint(tiny("gpt2", dtype=kind), None) == model_fingerprint(tiny("gpt2", dtype=kind), None)


def test_the_memory_layout_does_not_matter() -> None:
    model = tiny("llama")
    before = model_fingerprint(model, None)
    weight = model.model.layers[0].mlp.down_proj.weight
    weight.data = weight.data.t().contiguous().t()
    assert not weight.is_contiguous()
    assert model_fingerprint(model, None) == before


def test_the_place_on_disk_does_not_matter(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "copy")

    def fingerprint(directory: Path) -> str:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(directory)
        return model_fingerprint(model, AutoTokenizer.from_pretrained(directory))

    assert fingerprint(model_dir) == fingerprint(tmp_path / "copy")


def test_using_the_tokenizer_does_not_change_the_fingerprint() -> None:
    model, tokenizer = tiny("llama"), tiny_tokenizer()
    before = model_fingerprint(model, tokenizer)
    tokenizer(["good", "a good cat"], padding=True, truncation=True, max_length=8)
    assert model_fingerprint(model, tokenizer) == before


def test_what_is_stored_is_found() -> None:
    assert stored(*KEY) is None
    store(METRICS, *KEY)
    assert stored(*KEY) == METRICS
    store(METRICS[:1], *KEY)
    assert stored(*KEY) == METRICS[:1]


@pytest.mark.parametrize(
    "other", [("weights", "harness", "limit=4"), ("other", "harness", "limit=3"), ("weightsharness", "limit=3"), ()]
)
def test_another_key_is_another_entry(other: tuple[str, ...]) -> None:
    store(METRICS, *KEY)
    assert stored(*other) is None
    store(METRICS[:1], *other)
    assert stored(*KEY) == METRICS


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b'[{"task": "sst2", "na',
        b"\xff\xfe",
        b"null",
        b"5",
        b'{"a": 1}',
        b'["text"]',
        b'[{"task": "t", "name": "n"}]',
        b'[{"task": "t", "name": "n", "value": 1.0, "colour": 1}]',
        b'[{"task": "t", "name": "n", "value": null}]',
        b'[{"task": "t", "name": "n", "value": "much"}]',
    ],
)
def test_a_corrupt_entry_is_none(directory: Path, content: bytes) -> None:
    store(METRICS, *KEY)
    (path,) = directory.iterdir()
    path.write_bytes(content)
    assert stored(*KEY) is None
    store(METRICS, *KEY)
    assert stored(*KEY) == METRICS


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    store(METRICS, *KEY)
    assert stored(*KEY) is None


def test_a_failed_write_leaves_nothing(directory: Path) -> None:
    store(METRICS, *KEY)
    (path,) = directory.iterdir()
    path.unlink()
    path.mkdir()
    store(METRICS, *KEY)
    assert stored(*KEY) is None
    assert list(directory.iterdir()) == [path]


def test_entries_are_plain_json_under_the_named_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "here"))
    store(METRICS[:1], *KEY)
    (path,) = (tmp_path / "here" / "metrics").iterdir()
    assert path.suffix == ".json"
    assert unpacked(json.loads(path.read_text())) == METRICS[:1]


def test_documents_take_little_room() -> None:
    """Equal arrays take room once; as text, the numbers in two units would take half a million bytes."""
    rng = np.random.default_rng(0)
    totals, words, size = rng.normal(-300, 80, 5000), rng.integers(20, 200, 5000), rng.integers(100, 900, 5000)
    metrics = [
        Metric("t", name, 9.0, 0.1, False, likelihood=Likelihood(tuple(totals.tolist()), tuple(map(float, units))))
        for name, units in (("word", words), ("byte", size))
    ]
    right = tuple(map(float, rng.integers(0, 2, 5000)))
    metrics.append(Metric("u", "acc", sum(right) / 5000, 0.01, floor=0.25, documents=right, members=("a", "b")))
    answers = tuple(rng.integers(0, 4, 5000).tolist())
    metrics.append(replace(metrics[-1], task="v", strata=(Stratum(2000, 0.5), Stratum(3000, 0.5)), answers=answers))
    content = json.dumps(packed(metrics))
    assert unpacked(json.loads(content)) == metrics
    assert len(content) < 5000 * 16


def test_without_a_name_it_lies_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory("metrics") == tmp_path / ".cache" / "layerimp" / "metrics"
