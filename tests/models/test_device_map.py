"""A model spread over devices: the placement of its parts, and that each part computes on its own device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from layerimp_baselines.angular import Angular
from layerimp_fidelity import FidelityEvaluator
from layerimp_footprint import Footprint
from layerimp_harness.model import ModelInMemory
from support.tiny import EAGER_ONLY, classifier, tiny
from support.two_devices import FIRST, SECOND, placed, spread, two_devices
from transformers import AutoModelForCausalLM, PreTrainedModel

import layerimp
from layerimp import Recipe
from layerimp.blocks import memory
from layerimp.checkpoint.saving import check_checkpoint, check_memory
from layerimp.errors import ModelError, OptionError, OutputError
from layerimp.indices import kept_blocks
from layerimp.models import loading
from layerimp.models.fingerprint import model_fingerprint
from layerimp.registry.catalog import registry
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.sweep.cache import BlockCache
from layerimp.testing import BLOCKS, VOCAB, batch, padded_batch, tiny_tokenizer

SCORERS = ("avss", "block-influence", "angular", "relative-magnitude", "perplexity", "cim", "gbis", "taylor", "lrp")
"""All scorers that look at the model."""


def scores(model: PreTrainedModel, *scorers: str) -> dict[str, Any]:
    importances = layerimp.score(model, [padded_batch()], scorers or SCORERS)
    return {name: (importance.scores, dict(importance.columns)) for name, importance in importances.items()}


# The placement


def test_without_a_gpu_auto_is_the_cpu(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    usual, _ = layerimp.load(model_dir)
    spread_out, _ = layerimp.load(model_dir, device_map="auto")
    assert {parameter.device for parameter in spread_out.parameters()} == {torch.device("cpu")}
    for name, tensor in usual.state_dict().items():
        assert torch.equal(tensor, spread_out.state_dict()[name]), name
    assert scores(spread_out) == scores(usual)


def test_one_of_two_ways_is_given(model_dir: Path) -> None:
    for both in (lambda **ways: layerimp.load(model_dir, **ways), Recipe):
        with pytest.raises(OptionError, match="device and device_map contradict each other"):
            both(device="cpu", device_map="auto")
    with pytest.raises(OptionError, match="unknown device_map 'balanced'"):
        layerimp.load(model_dir, device_map="balanced")  # type: ignore[arg-type]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Simulates GPUs of the given sizes in bytes, and much main memory, until a weight is loaded."""

    def have(*sizes: int) -> None:
        monkeypatch.setattr(loading, "device_named", lambda _device: torch.device("cuda"))
        memory = {**dict(enumerate(sizes)), "cpu": 1 << 40}
        monkeypatch.setattr(loading, "get_balanced_memory", lambda *_args, **_options: memory)

    return have


@pytest.mark.parametrize(
    ("sizes", "lacking"),
    [
        ((130_000, 60_000), "lm_head, model.layers.3, model.norm, model.rotary_emb;"),
        ((70_000, 60_000), "lm_head, model.layers.1, model.layers.2, model.layers.3, model.norm and 1 more;"),
        ((1,), "all of it;"),
    ],
)
def test_what_has_no_room_is_said_before_weights_are_read(
    gpus: Callable[..., None], model_dir: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], lacking: str
) -> None:
    gpus(*sizes)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    with pytest.raises(ModelError) as caught:
        layerimp.load(model_dir, device_map="auto")
    said = str(caught.value)
    assert said.startswith(f"{str(model_dir)!r} does not fit on the GPUs: there is no room for {lacking}")
    assert said.endswith("more GPUs help, a smaller dtype (--dtype), or the CPU (--device cpu)")
    assert "\n" not in said


def test_a_smaller_dtype_takes_less_room(
    gpus: Callable[..., None], model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(70_000, 60_000)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_args, **options: asked.update(options))
    with pytest.raises(ModelError):
        layerimp.load(model_dir, device_map="auto", dtype="bfloat16")  # nothing was loaded
    places = asked["device_map"]
    assert set(places.values()) == {0, 1}
    # Blocks are whole.
    assert sum(name.removeprefix("model.layers.").isdigit() for name in places) == BLOCKS


# All is done where it lies


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("llama", 2),
        ("gemma2", 1),
        ("mixtral", 2),
        ("bert", 2),
        *(
            pytest.param(*where, marks=pytest.mark.slow)
            for where in (("gpt2", 3), ("distilbert", 1), ("deberta-v2", 2))
        ),
    ],
)
def test_every_scorer_finds_the_same_on_two_devices(name: str, first: int) -> None:
    """In gemma2 every other block is of another structure, and is tried on the second device; its weights are tied."""
    attention = "eager" if name in EAGER_ONLY else "sdpa"
    expected = scores(tiny(name, attention=attention))
    with two_devices():
        model = spread(tiny(name, attention=attention), first)
        assert {parameter.device for parameter in model.parameters()} == {FIRST, SECOND}
        on_two = scores(model)
    for scorer, (values, columns) in expected.items():
        assert on_two[scorer][0] == pytest.approx(values, rel=1e-5), scorer
        for column, numbers in columns.items():
            assert on_two[scorer][1][column] == pytest.approx(numbers, rel=1e-5, abs=1e-9), (scorer, column)


def on_both(what: Callable[[PreTrainedModel], Any], make: Callable[[], PreTrainedModel] = tiny) -> list[Any]:
    """What comes of a model on one device, and of the same on two."""
    plain = what(make())
    with two_devices():
        return [plain, what(spread(make(), 2))]


def test_scores_of_a_classifier_by_its_labels() -> None:
    labelled = padded_batch() | {"labels": torch.tensor([0, 2, 1])}

    def label_scores(model: PreTrainedModel) -> list[float]:
        return [
            s
            for importance in layerimp.score(model, [labelled], ["cim", "gbis", "lrp"]).values()
            for s in importance.scores
        ]

    plain, two = on_both(label_scores, lambda: classifier("llama"))
    assert two == pytest.approx(plain)


def test_windows_across_the_border() -> None:
    def windows(model: PreTrainedModel) -> Any:
        return layerimp.score(model, [padded_batch()], [Angular(BLOCKS, Angular.Config(window=3))])["angular"].spans[3]

    plain, two = on_both(windows)
    assert two == pytest.approx(plain)


@pytest.mark.parametrize("name", ["bert", pytest.param("llama", marks=pytest.mark.slow)])
def test_blocks_are_bypassed_and_removed_on_each_side_of_the_border(name: str) -> None:
    """After the blocks of bert comes no norm that would bring the hidden states back."""

    def scores_without(model: PreTrainedModel) -> list[float]:
        stack, values = layerimp.find_blocks(model), []
        cache = BlockCache(stack)
        for removed in ([], [1], [1, 2], [2, 3]):
            for scorer in ("block-influence", "perplexity", "gbis"):
                made = registry().get("scorer", scorer)(len(kept_blocks(removed, BLOCKS)))
                kept = measure(stack, [padded_batch()], {scorer: made}, removed=removed, cache=cache)
                values += kept[scorer].scores
            if removed:
                with pruned(model, removed):
                    values += scores(model, "perplexity")["perplexity"][0]
        return values

    plain, two = on_both(scores_without, lambda: tiny(name))
    assert two == pytest.approx(plain, rel=1e-5, abs=1e-9)


def test_evaluation_on_two_devices() -> None:
    """Likelihoods, generated text, speed, and the name under which metrics are kept."""
    tokenizer = tiny_tokenizer()

    def request(*arguments: Any) -> Any:
        return type("Request", (), {"args": arguments, "task_name": "task", "doc_id": 0})()

    def evaluation(model: PreTrainedModel) -> Any:
        lm = ModelInMemory(model, tokenizer, batch_size=2, max_length=16, advance=lambda _units: None)
        likely = lm.loglikelihood([request("the cat sat", " on"), request("a dog", " ran good")])
        rolled = lm.loglikelihood_rolling([request("the cat sat on the mat and was good " * 5)])
        written = lm.generate_until([request("the cat", {"until": ["."], "max_gen_toks": 5, "do_sample": False})])
        size = Footprint(Footprint.Config(repeats=1, warmup=0, seq_length=8)).evaluate(model, None)[0].value
        return [value for value, _greedy in likely], rolled, written, size, model_fingerprint(model, tokenizer)

    plain, two = on_both(evaluation)
    assert two[0] == pytest.approx(plain[0])
    assert two[1] == pytest.approx(plain[1])
    assert two[2:] == plain[2:]


@pytest.mark.parametrize(
    ("make", "borders"),
    [
        *((tiny, borders) for borders in ((2, 1), (0, 1), (0, None))),
        (partial(classifier, "llama"), (2, 1)),
        *(pytest.param(tiny, borders, marks=pytest.mark.slow) for borders in ((1, 3), (2, 0))),
        pytest.param(partial(tiny, "gemma2"), (2, 1), marks=pytest.mark.slow),
    ],
)
def test_fidelity_of_models_on_two_devices(
    make: Callable[[], PreTrainedModel], borders: tuple[int | None, int | None]
) -> None:
    """Each model stays where it is: on both devices, on the second (0), or on a third (None), as the text is."""

    def put(model: PreTrainedModel, first: int | None) -> PreTrainedModel:
        if first is None:
            return model
        return spread(model, first) if first else placed(model, SECOND)

    def fidelity(intact: PreTrainedModel, other: PreTrainedModel) -> Any:
        evaluator = FidelityEvaluator(FidelityEvaluator.Config(prompts=2, new_tokens=6))
        return evaluator.comparison(intact, tiny_tokenizer(), [batch(4, 40), padded_batch((36, 5, 20))])(other)

    plain = fidelity(make(), layerimp.prune(make(), [1]))
    assert plain.divergence.mean > 0
    with two_devices():
        models = list(map(put, (make(), layerimp.prune(make(), [1])), borders))
        places = [[parameter.device for parameter in model.parameters()] for model in models]
        two = fidelity(*models)
        assert [[parameter.device for parameter in model.parameters()] for model in models] == places
    assert two.divergence.mean == pytest.approx(plain.divergence.mean, rel=1e-5)
    assert (two.agreement, two.generation, two.missing) == (plain.agreement, plain.generation, plain.missing)
    if plain.copying is not None:
        assert two.copying.divergence == pytest.approx(plain.copying.divergence, rel=1e-5)


def test_a_run_on_two_devices(model_dir: Path, calibration_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(
        model=str(model_dir),
        calibration={"source": str(calibration_file), "samples": 4, "max_length": 16},
        tasks=(),
        evaluators={
            "footprint": {"options": {"repeats": 1, "warmup": 0, "seq_length": 8}},
            "fidelity": {"options": {"rows": 2, "prompts": 0}},
        },
    )
    plain = layerimp.run(recipe.model_copy(update={"device": "cpu"})).model
    places = {"model.embed_tokens": FIRST, "model.norm": SECOND, "model.rotary_emb": SECOND, "lm_head": SECOND}
    places |= {f"model.layers.{index}": FIRST if index < 1 else SECOND for index in range(BLOCKS)}
    monkeypatch.setattr(loading, "device_named", lambda _device: torch.device("cuda"))
    monkeypatch.setattr(loading, "spread_over_gpus", lambda *_args: places)
    with two_devices():
        two = layerimp.run(recipe.model_copy(update={"device_map": "auto"})).model
    assert two.importance["divergence"].scores == pytest.approx(plain.importance["divergence"].scores)
    assert two.plans == plain.plans
    sizes = [{label: each.size for label, each in model.pruned.items()} for model in (two, plain)]
    assert (two.size, sizes[0]) == (plain.size, sizes[1])
    distances = [model.pruned["divergence"].fidelity.divergence.mean for model in (two, plain)]
    assert distances[0] == pytest.approx(distances[1])


def test_a_checkpoint_is_compared_where_the_model_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layerimp.save(layerimp.prune(tiny(), [1, 2]), None, tmp_path / "out")
    with two_devices():
        model = spread(tiny(), 2)
        with pruned(model, [1, 2]):
            check_checkpoint(model, tmp_path / "out")
        monkeypatch.setattr(memory, "free_bytes", lambda device: 0 if device == SECOND else 1 << 40)
        with pytest.raises(OutputError, match=r"more memory on cpu:1, where 0\.0 GiB are free"):
            check_memory(model)


def test_hooks_of_accelerate_stay_and_do_nothing_else(tmp_path: Path) -> None:
    plain = tiny()
    model = tiny()
    places = dict.fromkeys(["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"], "cpu")
    places |= {f"model.layers.{index}": "cpu" for index in range(BLOCKS)}
    dispatch_model(model, places, force_hooks=True)
    forwards = {name: module.forward for name, module in model.named_modules() if hasattr(module, "_hf_hook")}
    assert {"", "model.layers.1", "model.layers.1.mlp.down_proj", "lm_head"} <= forwards.keys()
    assert scores(model) == scores(plain)
    with pruned(model, [1]), pruned(plain, [1]):
        assert scores(model) == scores(plain)
        layerimp.save(model, None, tmp_path / "hooked")
        layerimp.save(plain, None, tmp_path / "plain")
    assert scores(model) == scores(plain)
    assert {name: module.forward for name, module in model.named_modules() if hasattr(module, "_hf_hook")} == forwards
    ids = torch.arange(1, 9)[None] % VOCAB
    for directory in ("hooked", "plain"):
        reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / directory)
        with pruned(plain, [1]), torch.no_grad():
            assert torch.equal(reloaded(ids).logits, plain(ids).logits), directory
