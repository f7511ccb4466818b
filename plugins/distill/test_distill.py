"""The healer `distill`: training that is within its limits, keeps the best step, and leaves the intact model alone."""

from __future__ import annotations

import math
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace as replace_field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from layerimp_distill.course import Limits, Outcome
from layerimp_distill.distill import Distill
from layerimp_distill.learning import learning
from layerimp_distill.losses import loss_of
from layerimp_distill.memory import Memory, State
from layerimp_distill.options import DistillConfig
from layerimp_distill.training import _rate, _settings, train
from rich.filesize import decimal
from support.tiny import classifier
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, PreTrainedModel

import layerimp
from layerimp.cache.directory import CACHE_VARIABLE, entries
from layerimp.cache.unfinished import in_use
from layerimp.errors import InputError, ModelError
from layerimp.healer import Case, Healer, Loss, Repair
from layerimp.healing import Healed, Teaching, replace
from layerimp.registry.attribution import create
from layerimp.testing import VOCAB, batch, padded_batch, tiny_classifier, tiny_model

TEXT = [batch(8, 16, seed=seed) for seed in range(3)] + [padded_batch((16, 9, 12, 5), seed=4)]


def sharp(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose predictions depend on its blocks: those of a random one hardly do."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 2 and "embed" not in name:
                value.mul_(12)
    return model


def healed(model: PreTrainedModel, gone: list[Any] | None = None, **options: Any) -> Healed:
    settings = {"steps": 40, "rate": 3e-3, "checks": 5} | options
    return layerimp.heal(model, gone or [1], TEXT, "distill", **settings)


class Notes:
    """Hears of what is noted."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)

    @contextmanager
    def stage(self, *_args: Any, **_more: Any) -> Iterator[Any]:
        yield lambda _units: None


class Seen(Healer):
    """Shows a case to a test."""

    name = "seen"

    def __init__(self, look: Any) -> None:
        super().__init__()
        self._look = look

    def heal(self, case: Case) -> list[Repair]:
        self._look(case)
        return [Repair(gap, "nothing") for gap in case.gaps]


def divergence(pruned: PreTrainedModel, intact: PreTrainedModel) -> float:
    """From whole logits, averaged over the predictions of the last part of the text."""
    one = TEXT[2]
    with torch.no_grad():
        ours, theirs = (model.eval()(**one).logits[:, :-1].log_softmax(-1) for model in (pruned, intact))
    return float((theirs.exp() * (theirs - ours)).sum(-1).mean())


@pytest.mark.parametrize("loss", ["divergence", "hidden", "streams"])
@pytest.mark.parametrize("learns", ["beside", "lora", "all"])
def test_what_is_left_comes_nearer_to_the_intact_model(loss: str, learns: str) -> None:
    """Whatever the loss, the predictions of the healed model diverge less than those of the pruned one."""
    model = sharp(tiny_model())
    distances: list[float] = []

    def look(case: Case) -> None:
        distances.append(divergence(case.pruned.model, model))
        loss_now = loss_of(loss, Teaching(case), case.batches)
        with learning(case, learns, width=2, rank=4) as learner:
            optimizer = torch.optim.AdamW(learner.parameters, lr=3e-3, weight_decay=0)
            for step in range(40):
                optimizer.zero_grad()
                loss_now(case.batches[step % len(case.batches)]).backward()
                optimizer.step()
            distances.append(divergence(case.pruned.model, model))
            values = learner.values()
        assert divergence(case.pruned.model, model) == distances[0], "both models are what they were"
        for path, value in values.items():
            replace(case.pruned.model, path, value)
        distances.append(divergence(case.pruned.model, model))

    layerimp.heal(model, [1], TEXT, Seen(look))
    before, learned, put = distances
    assert learned < 0.9 * before
    assert put == pytest.approx(learned, rel=1e-4), "the values are those that were learned"


def test_without_the_teacher_the_text_is_learned() -> None:
    model = sharp(tiny_model())

    def look(case: Case) -> None:
        loss = loss_of("text", Teaching(case), case.batches)
        with learning(case, "beside", width=2, rank=4) as learner:
            before = [float(loss(one).detach()) for one in case.batches]
            config = DistillConfig(steps=40, rate=3e-3, checks=1, loss="text")
            train(case, learner, loss, Limits(40, None, None), config, Memory(None), before=math.inf)
            after = [float(loss(one).detach()) for one in case.batches]
        assert all(now < 0.9 * then for now, then in zip(after, before, strict=True))

    layerimp.heal(model, [1], TEXT, Seen(look))


def test_the_best_step_is_kept() -> None:
    """The held-out loss falls, and rises again: the values are those of the step where it was least."""
    losses = iter([5.0, 3.0, 4.0, 2.5, 6.0, 7.0])
    history: list[torch.Tensor] = []

    def look(case: Case) -> None:
        with learning(case, "beside", width=1, rank=1) as learner:

            def loss() -> Loss:
                history.append(learner.parameters[0].detach().clone())
                return Loss([next(losses)], [1])

            measured = replace_field(case, loss=loss)
            config = DistillConfig(steps=6, checks=6, rate=1e-2)
            teaching = loss_of("divergence", Teaching(case), case.batches)
            outcome = train(measured, learner, teaching, Limits(6, None, None), config, Memory(None), before=4.5)
            assert outcome.best is not None
            assert (outcome.best.steps, outcome.best.loss) == (4, 2.5)
            assert [check.loss for check in outcome.checks] == [5.0, 3.0, 4.0, 2.5, 6.0, 7.0]
            assert torch.equal(learner.parameters[0], history[3])
            assert not torch.equal(history[3], history[5])

    layerimp.heal(tiny_model(), [1], TEXT, Seen(look))


@pytest.mark.parametrize("learns", ["beside", "lora"])
def test_half_precision(learns: str) -> None:
    """What learns is float32; what is measured is rounded, as what is kept; nothing of the Trainer's stays behind."""
    notes, config = Notes(), DistillConfig(checks=2)

    def look(case: Case) -> None:
        model, loss = case.pruned.model, loss_of("divergence", Teaching(case), case.batches)
        with learning(case, learns, width=1, rank=2) as learner:
            outcome = train(case, learner, loss, Limits(4, None, None), config, Memory(None), before=math.inf)
            assert outcome.best is not None
            assert {parameter.dtype for parameter in learner.parameters} == {torch.float32}
            with learner.settled():
                assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
                measured = case.loss()
            values = dict(learner.values())
        for path, value in values.items():
            replace(model, path, value)
        assert case.loss() == measured

    layerimp.heal(sharp(tiny_model()).to(torch.bfloat16), [1], TEXT, Seen(look), progress=notes)
    assert not [told for told in notes.told if "left" in told]


def same(outcome: Outcome) -> list[tuple[int, int, float]]:
    """The checks of a training without their times."""
    return [(check.steps, check.tokens, check.loss) for check in outcome.checks]


class Always(Memory):
    """Keeps the state after every step."""

    due = True


@pytest.mark.same_bits("the weights of an interrupted and resumed training, and of one without a break")
@pytest.mark.parametrize("learns", ["beside", "lora"])
def test_an_interrupted_training_comes_to_the_same(tmp_path: Path, learns: str) -> None:
    """Interrupted at the fourth of seven steps, and run again: equal in every bit to one that was not."""
    found: list[list[torch.Tensor]] = []
    config = DistillConfig(steps=7, checks=3, rate=1e-2, rows=2)
    outcomes, notes = [], Notes()

    def trained(case: Case, memory: Memory, stop: int | None = None) -> None:
        teaching, steps = loss_of("divergence", Teaching(case), case.batches), 0

        def loss(inputs: Any) -> torch.Tensor:
            nonlocal steps
            steps += 1
            if steps == stop:
                raise KeyboardInterrupt
            return teaching(inputs)

        with learning(case, learns, width=1, rank=2) as learner:
            outcomes.append(train(case, learner, loss, Limits(7, None, None), config, memory, before=math.inf))
            found.append([parameter.detach().clone() for parameter in learner.parameters])

    def look(case: Case) -> None:
        noting = replace_field(case, progress=notes, further=[batch(4, 16, seed=9)])
        trained(noting, Memory(None))
        with pytest.raises(KeyboardInterrupt):
            trained(noting, Always(tmp_path), stop=5)
        trained(noting, Always(tmp_path))
        trained(noting, Always(tmp_path), stop=1)  # nothing is left to do

    layerimp.heal(sharp(tiny_model()), [1], TEXT, Seen(look))
    whole, resumed, done = found
    assert all(map(torch.equal, whole, resumed))
    assert all(map(torch.equal, whole, done))
    assert same(outcomes[0]) == same(outcomes[1]) == same(outcomes[2])
    assert [note for note in notes.told if "after 4 steps" in note]


def test_a_state_that_cannot_be_read_starts_anew(tmp_path: Path) -> None:
    state = State(1, 2, 3.0, 0.5, 1, [(1, 2, 3.0, 2.5)], [torch.ones(2)], [], {})
    memory = Memory(tmp_path)
    assert memory.read([torch.ones(2)]) is None
    memory.write(state)
    read = memory.read([torch.ones(2)])
    assert read is not None
    assert (read.steps, read.checks) == (1, [(1, 2, 3.0, 2.5)])
    assert memory.read([torch.ones(3)]) is None, "it is of another training"
    (tmp_path / "training.pt").write_bytes((tmp_path / "training.pt").read_bytes()[:100])
    assert memory.read([torch.ones(2)]) is None
    shutil.rmtree(tmp_path)
    memory.write(state)  # no place to write is no reason to stop
    assert Memory(None).read([]) is None


def test_a_command_that_is_interrupted_leaves_the_state_and_one_that_ends_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same command finds the state of the same healing; another healing has one of its own."""
    model = sharp(tiny_model())
    calls = 0

    def interrupted(self: Any, batches: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(self, batches)

    real = Teaching.divergence
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(Memory, "due", True)
    monkeypatch.setattr(Teaching, "divergence", interrupted)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        healed(model, steps=5)
    (kept,) = entries("unfinished")
    assert interrupt.value.__notes__ == [
        f"the same command goes on from the last saved state, which takes {decimal(kept.size)} in the cache "
        "(layerimp cache --clear unfinished removes it)"
    ]
    assert kept.about == "distill of LlamaForCausalLM without block 1"
    assert not in_use(kept.path)
    healed(model, steps=2)
    assert [entry.path for entry in entries("unfinished")] == [kept.path], "another healing leaves it alone"
    resumed = healed(model, steps=5)
    assert entries("unfinished") == []
    assert calls == 2 + 1 + 2 + 3, "the two steps of the first run are not taken again"
    assert resumed.loss == healed(model, steps=5).loss


def test_healing_that_made_nothing_better_changes_nothing() -> None:
    """A rate that is far too high ruins the model: in the end it is what was pruned, and the report says so."""
    model = sharp(tiny_model())
    with torch.no_grad():
        for value in model.model.layers[1].parameters():
            value.mul_(0.01)
    starts = [torch.arange(first, first + 8)[:, None] for first in (1, 9, 17)]
    text = [model.generate(ids, max_new_tokens=15, min_new_tokens=15, do_sample=False) for ids in starts]
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in text]
    found = layerimp.heal(model, [1], batches, Distill(DistillConfig(steps=5, rate=100.0, checks=1)))
    assert found.loss["pruned"] < math.log(97) / 2, "no ruined model comes close"
    assert not found.changed
    assert {repair.done for repair in found.repairs} == {"nothing"}
    assert found.repairs[0].why.startswith("training did not clearly lower the held-out loss")
    assert found.loss["healed"] == found.loss["pruned"]


def test_a_rate_that_undoes_what_was_there_is_told() -> None:
    found = healed(sharp(tiny_model()), steps=4, rate=0.1, checks=4, first="linear")
    assert not any(repair.done.endswith("distill") for repair in found.repairs)
    why = re.search(r"held-out loss, which went from (\S+) up to (\S+): a lower rate may help$", found.repairs[0].why)
    assert why is not None
    assert float(why[1]) < float(why[2])


def test_another_healer_goes_first() -> None:
    found = healed(sharp(tiny_model()), steps=1, rate=1e-9, first="linear")
    assert found.repairs[0].done in ("linear", "nothing", "rescale")
    assert set(found.loss) == {"intact", "pruned", "healed"}, "what goes first is a part of this healing"
    assert found.repairs[0].why.endswith("training did not clearly lower the held-out loss")


def test_training_ends_at_the_first_limit() -> None:
    """Steps of at most four rows: of 8 x 16 tokens these are 64 tokens each; the fifth reaches 300."""
    counts: list[int] = []

    def look(case: Case) -> None:
        with learning(case, "beside", width=1, rank=1) as learner:
            only = replace_field(case, batches=[batch(8, 16, seed=0)], loss=lambda: Loss([9.0 - len(counts)], [1]))
            course = train(
                only, learner, counted, Limits(50, 300, None), DistillConfig(checks=100), Memory(None), before=10.0
            )
            assert course.checks[-1].tokens == 320

    def counted(one: Any) -> torch.Tensor:
        counts.append(int(one["attention_mask"].sum()))
        return torch.zeros((), requires_grad=True)

    layerimp.heal(tiny_model(), [1], TEXT, Seen(look))
    assert counts == [64] * 5


def test_a_loss_that_is_no_number_ends_it() -> None:
    def look(case: Case) -> None:
        with learning(case, "all", width=1, rank=1) as learner:
            broken = torch.tensor(math.nan, requires_grad=True)
            told = replace_field(case, progress=notes)
            outcome = train(
                told, learner, lambda _batch: broken, Limits(5, None, None), DistillConfig(), Memory(None), before=1.0
            )
            assert outcome.best is None

    notes = Notes()
    layerimp.heal(tiny_model(), [1], TEXT, Seen(look))
    assert notes.told == ["the loss of step 0 is nan; a lower rate may help; training ends there"]


def test_the_random_generators_stay() -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    healed(tiny_model(), steps=2)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == expected


def test_a_configuration_without_use_cache_stays_without() -> None:
    """The Trainer would add the field."""
    model = classifier("distilbert")
    fields = set(vars(model.config))
    assert "use_cache" not in fields
    healed(model, gone=[1], steps=3)
    assert set(vars(model.config)) == fields


def test_lora_adapts_linear_maps_beside_fused_experts() -> None:
    """Given the whole model, peft would adapt the experts in place of dense MLPs and shared experts."""
    size = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    size |= {"num_key_value_heads": 4, "intermediate_size": 48, "moe_intermediate_size": 16, "first_k_dense_replace": 2}
    size |= {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "q_lora_rank": 8}
    size |= {"kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
    torch.manual_seed(0)
    model = sharp(DeepseekV3ForCausalLM(DeepseekV3Config(**size)).eval())
    found: list[set[str]] = []

    def look(case: Case) -> None:
        with learning(case, "lora", width=1, rank=2) as learner:
            found.append(set(learner.values()))

    layerimp.heal(model, [1], TEXT, Seen(look))
    assert "model.layers.0.mlp.gate_proj.weight" in found[0]
    assert "model.layers.2.mlp.shared_experts.down_proj.weight" in found[0]


def test_float16_on_a_cpu_is_refused_before_any_training() -> None:
    with pytest.raises(ModelError, match=r"distill cannot train in float16 on a CPU: use --dtype float32 or bfloat16"):
        healed(tiny_model().half(), steps=3)


def test_a_classifier_learns_from_its_teacher() -> None:
    found = healed(tiny_classifier(), gone=[1, 2], steps=20, loss="hidden")
    assert found.accuracy["healed"] >= found.accuracy["pruned"]


def test_limits() -> None:
    limits = Limits(steps=10, tokens=1000, minutes=2.0)
    assert limits.spent(5, 100, 12.0) == 0.5
    assert limits.spent(1, 900, 12.0) == 0.9
    assert limits.spent(1, 100, 96.0) == 0.8


@pytest.mark.parametrize(
    ("named", "in_force"),
    [
        ({}, {"steps": 200}),
        ({"minutes": 5}, {"minutes": 5.0}),
        ({"tokens": 9}, {"tokens": 9}),
        ({"steps": 7, "minutes": 5}, {"steps": 7, "minutes": 5.0}),
        ({"steps": None, "minutes": 5}, {"minutes": 5.0}),
        ({"steps": None}, {"steps": 200}),
    ],
    ids=str,
)
def test_only_the_limits_that_are_named_are_in_force(named: dict[str, Any], in_force: dict[str, Any]) -> None:
    """What is written down of the options is read again as the same limits."""
    made = create("healer", "distill", named).config
    limits = {"steps": None, "minutes": None, "tokens": None} | in_force
    assert made.model_dump(include=set(limits)) == limits
    for written in (made.model_dump(mode="json"), made.model_dump(mode="json", exclude_defaults=True)):
        assert create("healer", "distill", written).config == made


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"first": "distill"}, "distill cannot run before itself"),
        ({"first": "liner"}, "unknown healer 'liner'. Did you mean 'linear'"),
        ({"minute": 1}, "unknown option 'minute' of healer 'distill'. Did you mean 'minutes'? Known: checks, first"),
        ({"minutes": "one"}, "option 'minutes' of healer 'distill': Input should be a valid number"),
        ({"options": {"minutes": 1}}, "unknown option 'options' of healer 'distill'"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        layerimp.heal(tiny_model(), [1], [], "distill", **options)


def test_an_instance_has_its_own_options() -> None:
    with pytest.raises(InputError, match=r"options are for a healer given by its name; this instance of 'distill' has"):
        layerimp.heal(tiny_model(), [1], [], Distill(), minutes=1)


def test_training_is_on_the_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    model: Any = SimpleNamespace(device=torch.device("cuda:1"), dtype=torch.float32, config=None)
    settings = _settings(model, DistillConfig(), "nowhere")
    assert settings.device == torch.device("cuda:1")
    assert settings.n_gpu <= 1
    assert current[-1] == torch.device("cuda:1")


def test_the_rate_rises_and_falls() -> None:
    assert [round(_rate(spent), 3) for spent in (0.0, 0.025, 0.05, 0.5, 1.0)] == [0.2, 0.5, 0.994, 0.5, 0.0]
    assert _rate(0.3) == 0.5 * (1 + math.cos(0.3 * math.pi))
