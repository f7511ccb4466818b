"""The healer `distill`: training that keeps no step that costs anything, and leaves the intact model alone."""

from __future__ import annotations

import math
import random
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace as replace_field
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from layerimp_distill.course import AFTER, Limits, Outcome
from layerimp_distill.descent import Descent, Task, schedule
from layerimp_distill.distill import Distill
from layerimp_distill.learning import learning
from layerimp_distill.memory import Memory, State
from layerimp_distill.options import DistillConfig
from layerimp_distill.room import Plan, needed, planned
from layerimp_distill.text import Text
from layerimp_distill.training import Training
from rich.filesize import decimal
from support.heard import Heard
from support.tiny import tiny
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import layerimp
import layerimp.blocks.memory
from layerimp.cache.directory import CACHE_VARIABLE, entries
from layerimp.cache.unfinished import in_use
from layerimp.errors import CalibrationError, InputError, ModelError
from layerimp.fidelity import Distance, Loss
from layerimp.healer import Case, Healer, Repair, Room, Scope
from layerimp.healing import Healed, Teaching, replace
from layerimp.healing.judging import Judge
from layerimp.registry.attribution import create
from layerimp.surgery.removal import prepare
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
    settings = {"steps": 40, "rate": 3e-3, "checks": 5, "first": None} | options
    return layerimp.heal(model, gone or [1], TEXT, "distill", **settings)


def lowering(case: Case, minimized: Callable[[Any], torch.Tensor]) -> Teaching:
    """A teaching in which something else takes the place of the divergence."""
    teaching = Teaching(case)
    teaching.divergence = lambda rows: (minimized(rows), len(rows))  # type: ignore[method-assign]
    return teaching


def interrupted(case: Case, stop: int | None) -> Teaching:
    """A teaching that is interrupted at a step; None for at none."""
    teaching, steps = Teaching(case), 0

    def loss(inputs: Any) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == stop:
            raise KeyboardInterrupt
        return teaching.divergence(inputs)[0]

    return lowering(case, loss)


def trained(
    case: Case,
    learner: Any,
    teaching: Teaching | None = None,
    memory: Memory | None = None,
    given: Distance | None = None,
    **options: Any,
) -> Outcome:
    """What comes of a training of four rows a step."""
    config = DistillConfig(**options)
    task = Task(case, learner, teaching or Teaching(case), config, Plan("all", 4, 4))
    with learner.settled():
        start = case.distance()
    training = Training(task, memory or Memory(None), Outcome(start, given or start), 0.0)
    if memory and (state := memory.read()):
        training.resume(state)
    training.run()
    return training.outcome


def at(*means: float) -> Distance:
    """A distance of two rows with this divergence, and with another one where rows are repeated."""
    return Distance(*(Loss([mean, mean], [1, 1]) for mean in means))


class Seen(Healer):
    """Shows a case to a test."""

    name = "seen"

    def __init__(self, look: Any) -> None:
        super().__init__()
        self._look = look

    def heal(self, case: Case) -> list[Repair]:
        self._look(case)
        return [Repair(gap, "nothing") for gap in case.gaps]


def see(model: PreTrainedModel, look: Callable[[Case], None]) -> None:
    """Show a test the case of a model without its second block."""
    layerimp.heal(model, [1], TEXT, Seen(look))


def divergence(pruned: PreTrainedModel, intact: PreTrainedModel) -> float:
    """From whole logits, averaged over the predictions of the last part of the text."""
    inputs = TEXT[2]
    with torch.no_grad():
        ours, theirs = (model.eval()(**inputs).logits[:, :-1].log_softmax(-1) for model in (pruned, intact))
    return float((theirs.exp() * (theirs - ours)).sum(-1).mean())


@pytest.mark.parametrize("learns", ["beside", "lora", "all", pytest.param("lora-beside", marks=pytest.mark.slow)])
def test_what_is_left_comes_nearer_to_the_intact_model(learns: str) -> None:
    """The predictions of the healed model diverge less than those of the pruned one."""
    model = sharp(tiny_model())
    distances: list[float] = []

    def look(case: Case) -> None:
        distances.append(divergence(case.pruned.model, model))
        teaching = Teaching(case)
        with learning(case, learns, width=2, rank=4) as learner:
            optimizer = torch.optim.AdamW(learner.parameters, lr=3e-3, weight_decay=0)
            for step in range(40):
                optimizer.zero_grad()
                total, count = teaching.divergence(case.batches[step % len(case.batches)])
                (total / count).backward()
                optimizer.step()
            distances.append(divergence(case.pruned.model, model))
            values = {path: value() for path, value in learner.values.items()}
        assert divergence(case.pruned.model, model) == distances[0], "both models are what they were"
        for path, value in values.items():
            replace(case.pruned.model, path, value)
        distances.append(divergence(case.pruned.model, model))

    see(model, look)
    before, learned, put = distances
    assert learned < 0.9 * before
    assert put == pytest.approx(learned, rel=1e-4), "the values are those that were learned"


def course(distances: list[Distance], **options: Any) -> tuple[Outcome, list[torch.Tensor], torch.Tensor, Heard]:
    """A training that measures these distances: its outcome, the values at each, the values left, and the notes."""
    measured, notes, history, results = iter(distances), Heard(), list[torch.Tensor](), list[Any]()

    def look(case: Case) -> None:
        with learning(case, "beside", width=1, rank=1) as learner:

            def distance() -> Distance:
                history.append(learner.parameters[0].detach().clone())
                return next(measured)

            noting = replace_field(case, distance=distance, progress=notes)
            # Its gradient is the same at each step, so that Adam moves each value by the rate.
            results.append(
                trained(noting, learner, lowering(case, lambda _rows: learner.parameters[0].sum()), **options)
            )
            results.append(learner.parameters[0].detach().clone())

    see(tiny_model(), look)
    return results[0], history, results[1], notes


def test_the_best_step_is_kept() -> None:
    """A step counts by the mean of both divergences relative to the start, and only if neither is worse than there."""
    distances = [at(4, 1), at(5, 0.5), at(2, 0.9), at(0.1, 1.1), at(3, 0.4), at(6, 0.1), at(4, 2)]
    outcome, history, left, _ = course(distances, steps=6, checks=6, rate=1e-2)
    assert outcome.best is not None
    assert (outcome.best.steps, outcome.best.distance) == (4, distances[4])
    assert [check.distance for check in outcome.checks] == distances[1:]
    assert torch.equal(left, history[4])
    assert not torch.equal(history[4], history[6])


def test_no_step_is_kept_that_is_worse_than_before_the_first_healer() -> None:
    """What the first healer and the training each may lose is not lost twice."""
    distances = [at(4, 1), at(3, 0.99), at(2, 1.0)]
    for given, best in ((at(5, 1), 2), (at(5, 0.995), 1)):
        outcome, *_ = course(distances, given=given, steps=2, checks=2, rate=1e-3)
        assert outcome.best is not None
        assert outcome.best.steps == best


def test_where_the_model_gets_worse_training_goes_back_and_on_at_a_third() -> None:
    """To the start, and later to the best step; a third of the rate is right there, and what was kept stays."""
    distances = [at(4, 1), at(4, 2.5), at(2, 0.8), at(6, 2), at(3, 0.9), at(3, 0.9), at(3, 0.9)]
    outcome, history, left, notes = course(distances, steps=6, checks=6)
    first = outcome.checks[0].rate
    assert [first / check.rate for check in outcome.checks] == pytest.approx([1, 3, 3, 9, 9, 9])
    assert torch.equal(left, history[2])
    assert [note.partition(": back to ")[2] for note in notes.lines] == [
        "the start, and on at a third",
        "step 2, and on at a third",
    ]
    assert "from 1 to 2.5" in notes.lines[0]
    moved = [float((values - start).abs().max()) for values, start in ((history[2], history[0]), (history[4], left))]
    rates = [first / 3 * schedule(1 / 6, 1 / 6), first / 9 * schedule(3 / 6, 3 / 6)]
    assert moved == pytest.approx(rates, rel=0.01), "it went on from the start, and from the best step"


@pytest.mark.parametrize(
    ("repeated", "taken_back"),
    [
        pytest.param([1.9, 1.95, 1.6, 1.2, 0.9, 0.8], None, id="it comes back by the end"),
        pytest.param([1.8, 1.7, 1.6, 1.5, 0.9, 0.9], 4, id="it comes nearer, but too slowly"),
        pytest.param([1.5, 1.2, 0.6, 1.1, 1.1, 0.9], 4, id="it was nearer, and is not any more"),
        pytest.param([1.8, 2.1, 1.2, 0.9, 0.9, 0.9], 2, id="it is too far away to be waited for"),
    ],
)
def test_a_rate_has_half_of_its_checks_before_its_pace_counts(repeated: list[float], taken_back: int | None) -> None:
    outcome, _, _, notes = course([at(4, 1), *(at(4, far) for far in repeated)], steps=6, checks=6)
    assert len([note for note in notes.lines if "back to" in note]) == (taken_back is not None)
    assert sum(check.rate == outcome.checks[0].rate for check in outcome.checks) == (taken_back or 6)


@pytest.mark.parametrize(("size", "rate"), [(0.02, 4e-5), (0.5, 1e-4)])
@pytest.mark.parametrize("learns", ["beside", "lora"])
def test_a_training_begins_at_a_five_hundredth_of_the_size_of_the_weights(
    learns: str, size: float, rate: float
) -> None:
    """A matrix that is smaller than all others does not decide; and the rate is at most 1e-4."""
    model, rates = tiny_model(), list[float]()
    with torch.no_grad():
        for block in model.model.layers:
            for value in block.parameters():
                value.copy_(torch.randn(value.shape).sign() * size if value.ndim > 1 else value)
            block.mlp.up_proj.weight.mul_(100)
        model.model.layers[2].mlp.down_proj.weight.mul_(0.01)

    def look(case: Case) -> None:
        with learning(case, learns, width=1, rank=2) as learner:
            rates.append(trained(case, learner, steps=1, checks=1).checks[0].rate)

    see(model, look)
    assert rates == pytest.approx([rate])


def test_the_rows_of_a_step_are_of_about_the_same_length() -> None:
    """Nothing is lost, the order is that of the text, and later steps are the same where earlier ones are skipped."""
    lengths = [1 + 7 * number % 64 for number in range(128)]
    rows = [
        {name: torch.ones(1, size, dtype=torch.long) for name in ("input_ids", "attention_mask")} for size in lengths
    ]
    rows = [row | {"labels": torch.zeros(1)} if n % 2 else row for n, row in enumerate(rows)]
    text = Text([], rows, 8, 0)

    def read(skipped: int, count: int) -> list[list[int]]:
        return [[row["input_ids"].shape[1] for row in step] for step in islice(text.steps(skipped), count)]

    steps = read(0, 16)
    for part in (8, 16):
        assert sorted(chain.from_iterable(steps[:part])) == sorted(lengths[: 8 * part])
    labelled = [["labels" in row for row in step] for step in islice(text.steps(), 16)]
    assert all(len(set(step)) == 1 for step in labelled), "rows with labels are not joined to those without"
    assert sum(8 * max(step) for step in steps) < 1.4 * sum(lengths)
    assert list(map(max, steps[:8])) != sorted(map(max, steps[:8])), "long rows come among short ones"
    for skipped in (3, 8, 13):
        assert read(skipped, 1) == [steps[skipped]]


def test_rows_of_almost_the_same_length_stay_in_their_order() -> None:
    """As windows of a text, of which those that hold their first half twice lack a token."""
    sizes = [256 - number % 3 // 2 for number in range(32)]
    rows = [{name: torch.ones(1, size, dtype=torch.long) for name in ("input_ids", "attention_mask")} for size in sizes]
    steps = islice(Text([], rows, 4, 0).steps(), 8)
    assert [row["input_ids"].shape[1] for step in steps for row in step] == sizes


def test_a_share_of_the_rows_holds_the_first_half_twice() -> None:
    batch = {"input_ids": torch.arange(10, 130).reshape(6, 20), "attention_mask": torch.ones(6, 20, dtype=torch.long)}
    batch["input_ids"][5], batch["attention_mask"][5, 10:] = 3, 0  # of the ten tokens, no half is long enough
    steps = Text([], [batch], 6, 0, repeated=0.25, special={0}).steps()
    rounds = [[row["input_ids"][0] for row in next(steps)] for _ in range(200)]
    again = torch.zeros(6)
    for rows in rounds:
        for ids in rows:
            number = 5 if len(ids) == 10 else int(ids[0] - 10) // 20
            whole = batch["input_ids"][number, : 10 if number == 5 else 20]
            if not torch.equal(ids, whole):
                assert torch.equal(ids, torch.cat([whole[:10]] * 2))
                again[number] += 1
    assert again[5] == 0
    assert ((again[:5] > 30) & (again[:5] < 70)).all(), "a quarter of 200 rounds, whichever row it is"


@pytest.mark.parametrize("learns", ["beside", "lora"])
def test_half_precision(learns: str) -> None:
    """What learns is float32; what is measured is rounded, as what is kept, and nothing stays behind."""
    notes = Heard()

    def look(case: Case) -> None:
        model, teaching = case.pruned.model, Teaching(case)
        with learning(case, learns, width=1, rank=2) as learner:
            outcome = trained(case, learner, teaching, steps=4, checks=2, rate=3e-3)
            assert outcome.best is not None
            assert {parameter.dtype for parameter in learner.parameters} == {torch.float32}
            dtypes: list[set[torch.dtype]] = []
            hook = case.pruned[1].mlp.register_forward_hook(
                lambda mlp, *_call: dtypes.append({parameter.dtype for parameter in mlp.parameters()})
            )
            with learner.settled():
                measured = case.distance()
            hook.remove()
            assert set().union(*dtypes) == {torch.bfloat16}
        for path, value in learner.values.items():
            replace(model, path, value())
        assert case.distance() == measured == outcome.best.distance

    layerimp.heal(sharp(tiny_model()).to(torch.bfloat16), [1], TEXT, Seen(look), progress=notes)
    assert not [note for note in notes.lines if "left" in note]


def same(outcome: Outcome) -> list[Any]:
    """The checks of a training without their times."""
    return [check._replace(seconds=0.0) for check in outcome.checks]


class Always(Memory):
    """Keeps the state after every step."""

    due = True


@pytest.mark.same_bits("the weights of an interrupted and resumed training, and of one without a break")
@pytest.mark.parametrize("learns", ["beside", "lora"])
def test_an_interrupted_training_comes_to_the_same(tmp_path: Path, learns: str) -> None:
    """Interrupted at the fourth of seven steps, and run again: equal in every bit to one that was not."""
    weights: list[list[torch.Tensor]] = []
    outcomes, notes = [], Heard()

    def once(case: Case, memory: Memory, stop: int | None = None) -> None:
        with learning(case, learns, width=1, rank=2) as learner:
            outcomes.append(trained(case, learner, interrupted(case, stop), memory, steps=7, minutes=30, checks=3))
            weights.append([parameter.detach().clone() for parameter in learner.parameters])

    def look(case: Case) -> None:
        noting = replace_field(case, progress=notes, further=[batch(4, 16, seed=9)])
        once(noting, Memory(None))
        with pytest.raises(KeyboardInterrupt):
            once(noting, Memory(tmp_path), stop=5)  # saved by the interruption alone
        once(noting, Always(tmp_path))
        once(noting, Always(tmp_path), stop=1)  # nothing is left to do

    see(sharp(tiny_model()), look)
    whole, resumed, done = weights
    assert all(map(torch.equal, whole, resumed))
    assert all(map(torch.equal, whole, done))
    assert same(outcomes[0]) == same(outcomes[1]) == same(outcomes[2])
    assert [note for note in notes.lines if "after 4 steps" in note]


def test_reading_again_what_was_trained_on_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test's own, on which only reading takes time. A finished training reads its text alone."""
    clock = [0.0]
    monkeypatch.setattr("layerimp_distill.training.time.monotonic", lambda: clock[0])

    class Slow:
        """Further text."""

        def __iter__(self) -> Iterator[Any]:
            clock[0] += 100.0
            yield batch(4, 16, seed=9)

    def once(case: Case, stop: int | None = None) -> State:
        with learning(case, "beside", width=1, rank=2) as learner, suppress(KeyboardInterrupt):
            trained(case, learner, interrupted(case, stop), Always(tmp_path), steps=7, checks=3)
        state = Always(tmp_path).read()
        assert state is not None
        return state

    def look(case: Case) -> None:
        reading = replace_field(case, further=Slow())
        halfway = once(reading, stop=5)
        assert (halfway.steps, halfway.seconds) == (4, 100.0)
        finished = once(reading)
        assert (finished.steps, finished.seconds, clock[0]) == (7, 100.0, 200.0)
        again = once(reading)
        assert (again.steps, again.seconds, clock[0]) == (7, 100.0, 300.0)

    see(sharp(tiny_model()), look)


def test_an_interruption_within_a_step_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the parameters may have changed; the note that nothing can be saved comes once."""
    heard, memory, steps = Heard(), Always(tmp_path), 0

    def interrupted(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt

    def look(case: Case) -> None:
        with learning(replace_field(case, progress=heard), "beside", width=1, rank=2) as learner:
            with pytest.raises(KeyboardInterrupt):
                trained(case, learner, None, memory, steps=7, checks=3)
            state = memory.read()
            assert state is not None
            assert state.steps == 2
            monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
            monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            trained(replace_field(case, progress=heard), learner, None, Always(tmp_path / "other"), steps=3, checks=3)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", interrupted)
    see(sharp(tiny_model()), look)
    told = [line for line in heard.lines if "cannot be resumed" in line]
    assert told == ["the training cannot be resumed after an interruption: OSError: [Errno 28] No space left on device"]


def test_too_little_memory_names_what_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(_: Training) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Training, "run", short)
    with pytest.raises(ModelError, match=r"distill needs more memory .* distill.learns=lora-beside takes less"):
        healed(sharp(tiny_model()), steps=2)


def test_too_little_memory_for_what_learns_is_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(_: Descent) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Descent, "keep", short)
    with pytest.raises(ModelError, match="distill needs more memory"):
        healed(sharp(tiny_model()), steps=2)
    with pytest.raises(ModelError, match=r"shorter rows \(--max-length\) take less"):
        healed(sharp(tiny_model()), steps=2, rows=1, learns="lora-beside")


def test_what_learns_is_decided_by_the_longest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    scopes: list[Scope] = []

    def deciding(self: Distill, pruned: Any, scope: Scope, room: Room) -> Any:
        scopes.append(scope)
        return decide(self, pruned, scope, room)

    decide = Distill.decide
    monkeypatch.setattr(Distill, "decide", deciding)

    class Longer(list[Any]):
        max_length = 24

    for further in (Longer([batch(4, 24, seed=9)]), [batch(4, 16, seed=9)]):
        layerimp.heal(sharp(tiny_model()), [1], TEXT, "distill", further=further, first=None, steps=1, checks=1)
    assert [scope.length for scope in scopes] == [24, 16]


def test_a_classifier_with_labels_trains_on_further_text_without_them() -> None:
    labelled = [each | {"labels": torch.zeros(len(each["input_ids"]), dtype=torch.long)} for each in TEXT]
    options = {"first": None, "steps": 3, "checks": 1, "rows": 5}
    layerimp.heal(tiny_classifier(), [1], labelled, "distill", further=[batch(8, 16, seed=9)], **options)


def test_further_text_is_read_again_and_again() -> None:
    for further, why in ((iter([batch(8, 16, seed=9)]), "can be read only once"), ([], "has no rows")):
        with pytest.raises(CalibrationError, match=why):
            layerimp.heal(sharp(tiny_model()), [1], TEXT, "distill", further=further)


def test_a_state_that_cannot_be_read_starts_anew(tmp_path: Path) -> None:
    state = State(
        *(("lora", 4, 2), 1e-4, 0.0, 1, 2, 3.0, 0.5, 10, 1, [(1, 2, 3.0, 1e-4, [2.5], [])], [torch.ones(2)], [], {}, {})
    )
    memory = Memory(tmp_path)
    assert memory.read() is None
    memory.write(state)
    read = memory.read()
    assert read is not None
    assert (read.plan, read.steps, read.checks) == (("lora", 4, 2), 1, [(1, 2, 3.0, 1e-4, [2.5], [])])
    (tmp_path / "training.pt").write_bytes((tmp_path / "training.pt").read_bytes()[:100])
    assert memory.read() is None
    shutil.rmtree(tmp_path)
    assert memory.write(state).startswith("RuntimeError: "), "no place to write is no reason to stop"
    assert Memory(None).read() is None


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


def test_a_resumed_training_goes_on_with_what_learned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Begun where memory was short, and resumed where it is not: the results say what learned, and how."""
    model, real, calls = sharp(tiny_model()), Teaching.divergence, 0

    def interrupted(self: Any, batches: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 10:  # in the third step, in which rows run one after another
            raise KeyboardInterrupt
        return real(self, batches)

    def bytes_free(free: int) -> None:
        monkeypatch.setattr(layerimp.blocks.memory, "free_bytes", lambda _device: free)

    def remembered(self: Memory) -> State | None:
        if (state := read(self)) is not None:
            states.append(weakref.ref(state))
        return state

    read, states, held = Memory.read, list[weakref.ref[State]](), list[State | None]()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(Memory, "due", True)
    monkeypatch.setattr(Teaching, "divergence", interrupted)
    first, resumed = Heard(), Heard()
    bytes_free(750_000)
    with pytest.raises(KeyboardInterrupt):
        healed(model, [2], steps=20, rate=0.01, width=1, progress=first)
    bytes_free(10**9)
    monkeypatch.setattr(Memory, "read", remembered)
    monkeypatch.setattr(Distill, "watch", lambda *_: held.extend(state() for state in states))
    (repair,) = healed(model, [2], steps=20, rate=0.01, width=1, progress=resumed).repairs
    assert first.lines[1].startswith("distill: the blocks beside the gaps learn, 4 rows a step, 1 at once")
    assert resumed.lines[1] == "goes on with the training that was interrupted after 2 steps"
    assert calls == 10 + 18 * 4, "rows still run one after another"
    assert (repair.done, repair.numbers["rows"], repair.numbers["rate"]) == ("distill (beside)", 4, 0.01)
    assert held == [None] * 5, "at no check is the saved state in memory beside what learns"
    bytes_free(750_000)
    assert healed(model, [2], steps=20, rate=0.01, width=1).repairs == [repair], "as without an interruption"


def test_healing_that_made_nothing_better_changes_nothing() -> None:
    """A rate that is far too high ruins the model: in the end it is what was pruned, and the report says so."""
    model = sharp(tiny_model())
    with torch.no_grad():
        for value in model.model.layers[1].parameters():
            value.mul_(0.01)
    starts = [torch.arange(first, first + 8)[:, None] for first in (1, 9, 17)]
    text = [model.generate(ids, max_new_tokens=15, min_new_tokens=15, do_sample=False) for ids in starts]
    batches = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in text]
    healing = layerimp.heal(model, [1], batches, Distill(DistillConfig(steps=5, rate=100.0, checks=1, first=None)))
    assert healing.loss["pruned"] < math.log(97) / 2, "no ruined model comes close"
    assert not healing.changed
    assert {repair.done for repair in healing.repairs} == {"nothing"}
    assert healing.repairs[0].why.startswith("training did not bring the model clearly nearer to the intact one")
    assert healing.loss["healed"] == healing.loss["pruned"]


def test_a_rate_that_undoes_what_was_there_is_told() -> None:
    healing = healed(sharp(tiny_model()), steps=4, rate=0.1, checks=4, first="linear")
    assert not any(repair.done.endswith("distill") for repair in healing.repairs)
    why = re.search(r"took it as far as (\d+)% of the distance before: a lower rate may help$", healing.repairs[0].why)
    assert why is not None
    assert int(why[1]) > 100


def test_another_healer_goes_first_and_is_kept_by_the_same_rule() -> None:
    notes, model, judging = Heard(), sharp(tiny_model()), [batch(8, 24, seed=6)]
    for scale, kept in ((1.0, True), (30.0, False)):

        class First(Healer):
            """Brings back the intact model's head, or ruins it."""

            name = "first"

            def heal(self, case: Case, scale: float = scale) -> list[Repair]:
                replace(case.pruned.model, "lm_head.weight", scale * model.lm_head.weight)
                return [Repair(gap, "first") for gap in case.gaps]

        healer = Distill(DistillConfig(steps=1, rate=1e-9))
        healer._first = First()
        pruned = layerimp.find_blocks(prepare(layerimp.find_blocks(model), [1]).beside())
        replace(pruned.model, "lm_head.weight", 3 * model.lm_head.weight)
        healing = layerimp.heal(model, [1], TEXT, healer, pruned=pruned.model, judging=judging, progress=notes)
        assert healing.repairs[0].done == ("first" if kept else "nothing")
        assert bool(healing.changed) is kept
        assert healing.repairs[0].why.endswith("training did not bring the model clearly nearer to the intact one")
    assert [note for note in notes.lines if note.startswith("first was taken back before the training: the divergence")]


def test_what_the_first_healer_holds_in_memory_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it read of both models may be kept, as `linear` lets it be."""
    free, notes = 10**9, Heard()

    class First(Healer):
        """Takes half of the memory."""

        name = "first"

        def heal(self, case: Case) -> list[Repair]:
            nonlocal free
            free //= 2
            return [Repair(gap, "nothing") for gap in case.gaps]

    monkeypatch.setattr(layerimp.blocks.memory, "free_bytes", lambda _device: free)
    healer = Distill(DistillConfig(steps=1, rate=1e-9))
    healer._first = First()
    layerimp.heal(tiny_model(), [1], TEXT, healer, judging=[batch(8, 24, seed=6)], progress=notes)
    assert notes.lines[0].endswith("where 500.0 MB are free")


def test_training_ends_at_the_first_limit() -> None:
    """Steps of at most four rows: of 8 x 16 tokens these are 64 tokens each; the fifth reaches 300."""
    counts: list[int] = []

    def look(case: Case) -> None:
        with learning(case, "beside", width=1, rank=1) as learner:
            only = replace_field(case, batches=[batch(8, 16, seed=0)])
            course = trained(only, learner, lowering(only, counted), steps=50, tokens=300, rate=1e-3, checks=100)
            assert course.checks[-1].tokens == 320

    def counted(inputs: Any) -> torch.Tensor:
        counts.append(int(inputs["attention_mask"].sum()))
        return torch.zeros((), requires_grad=True)

    see(tiny_model(), look)
    assert counts == [64] * 5


@pytest.mark.parametrize(
    ("rate", "end"),
    [(1e-3, "at step 0 the loss is nan; training ends there; a lower rate may help"), (None, "back to the start")],
)
def test_a_loss_that_is_no_number_ends_it(rate: float | None, end: str) -> None:
    def look(case: Case) -> None:
        with learning(case, "all", width=1, rank=1) as learner:
            broken = torch.tensor(math.nan, requires_grad=True)
            noting = replace_field(case, progress=notes)
            assert trained(noting, learner, lowering(case, lambda _batch: broken), steps=5, rate=rate).best is None

    notes = Heard()
    see(tiny_model(), look)
    assert end in notes.lines[-1]


LLAMA = LlamaConfig(
    **{"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32},
    num_hidden_layers=32,
)
"""Llama 2 7B."""
QWEN = Qwen2Config(
    **{"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28},
    **{"num_key_value_heads": 4, "num_hidden_layers": 28},
)
"""Qwen 2.5 7B."""


@pytest.mark.parametrize(("model", "config", "size"), [(LlamaForCausalLM, LLAMA, 6.74), (Qwen2ForCausalLM, QWEN, 7.62)])
def test_what_learns_follows_from_the_memory(model: Any, config: Any, size: float) -> None:
    """By arithmetic on the meta device: models of 7 billion parameters without a quarter of their blocks, two gaps."""
    with torch.device("meta"):
        intact = layerimp.find_blocks(model(config).to(torch.bfloat16))
        left = {"num_hidden_layers": 3 * len(intact) // 4, "layer_types": None}
        stack = layerimp.find_blocks(model(type(config)(**{**config.to_dict(), **left})).to(torch.bfloat16))
    weights = sum(value.nbytes for value in intact.model.parameters())  # the pruned model shares those that it has
    assert weights == pytest.approx(2e9 * size, rel=0.01)
    scope = Scope(gaps=2, length=256)
    block = sum(value.numel() for value in intact[0].parameters())

    def plan(total: float, **options: Any) -> tuple[Plan, dict[str, int]]:
        own = DistillConfig(**options)
        made = planned(stack, own, scope, Room("cuda", int(total) - weights))
        return made, needed(stack, own, made, scope)

    made, need = plan(80e9)
    assert made.learns == "beside"
    kept = [need[name] for name in ("learned values", "gradients", "optimizer", "best values")]
    assert kept == [4 * 8 * block, 4 * 8 * block, 8 * 8 * block, 4 * 8 * block], "eight blocks beside two gaps"
    assert plan(200e9)[0] == Plan("all", 16, 16)
    assert plan(48e9)[0].learns == "lora"
    made, need = plan(24e9)
    assert made == Plan("lora-beside", 16, 2), "where memory is short, rows run one after another"
    assert weights + 1.1 * sum(need.values()) <= 24e9
    _, need = plan(24e9, learns="lora", rows=1)
    assert need["healed weights"] == 2 * len(stack) * sum(v.numel() for v in intact[0].parameters() if v.ndim > 1)
    assert weights + 1.1 * sum(need.values()) > 24e9, "all merged matrices beside those of the intact model"
    assert plan(80e9, learns="lora", rows=4)[0] == Plan("lora", 4, 4)
    assert planned(stack, DistillConfig(), scope, Room("cpu", 0)) == Plan("lora-beside", 4, 1)


def test_blocks_without_linear_maps_have_no_low_rank_changes() -> None:
    stack, scope = layerimp.find_blocks(tiny("falcon")), Scope(gaps=1, length=16)
    assert planned(stack, DistillConfig(), scope, Room("cpu", 0)) == Plan("beside", 4, 1)


def test_what_may_not_fit_is_told_before_the_training() -> None:
    stack = layerimp.find_blocks(tiny_model())
    scope = Scope(gaps=1, length=16)
    for free, told in ((0, True), (2**30, False)):
        words = Distill(DistillConfig()).decide(stack, scope, Room("cpu", free)).words
        assert words.endswith("are free; it may not fit: then the training fails, perhaps only at its end") is told


def test_a_classifier_has_no_logits_of_tokens() -> None:
    scope, plan = Scope(gaps=1, length=16), Plan("all", 8, 8)
    sizes = [
        needed(layerimp.find_blocks(model), DistillConfig(), plan, scope)["logits"]
        for model in (tiny_model(), tiny_classifier())
    ]
    assert sizes == [3 * 4 * 8 * 16 * VOCAB, 0], "three values of 4 bytes for each token and word"


def stored_bytes(*models: PreTrainedModel) -> int:
    """The bytes of the parameters of some models, a shared one once."""
    parts = {value.data_ptr(): value.nbytes for model in models for value in model.parameters()}
    return sum(parts.values())


@pytest.mark.parametrize("learns", ["all", "beside", "lora", "lora-beside"])
def test_what_does_not_learn_is_in_memory_once(learns: str) -> None:
    """Both models share it in the training, and afterwards; low-rank changes leave the matrices themselves alone."""
    model, sizes = sharp(tiny_model()), list[int]()

    def look(case: Case) -> None:
        with learning(case, learns, width=1, rank=2) as learner:
            sizes.append(stored_bytes(model, case.pruned.model) - sum(value.nbytes for value in learner.parameters))
            if learns.startswith("lora"):
                assert sizes[-1] == stored_bytes(model)
        for path, value in learner.values.items():
            replace(case.pruned.model, path, value())
        healed = sum(case.pruned.model.get_parameter(path).nbytes for path in learner.values)
        sizes.append(stored_bytes(model, case.pruned.model) - healed)

    see(model, look)
    assert sizes == [stored_bytes(model)] * 2


def test_low_rank_changes_beside_the_gaps_leave_other_blocks() -> None:
    blocks: list[set[int]] = []

    def look(case: Case) -> None:
        for learns in ("lora-beside", "lora"):
            with learning(case, learns, width=1, rank=2) as learner:
                blocks.append({int(path.split(".")[2]) for path in learner.values})

    layerimp.heal(tiny_model(num_hidden_layers=12), [4], TEXT, Seen(look))
    assert blocks == [{3, 4}, set(range(11))]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [("llama", {}), ("llama", {"attn_implementation": "eager"}), ("gemma2", {"head_dim": 16})]
    + [("mixtral", {"num_local_experts": 8, "num_experts_per_tok": chosen}) for chosen in (2, 6)],
    ids=str,
)
def test_activations_are_counted_as_autograd_keeps_them(architecture: str, changes: dict[str, Any], half: bool) -> None:
    """Also of scores of attention, which gemma2 computes one by one, and of the experts that a token passes."""
    model = tiny_model(architecture, hidden_size=64, intermediate_size=176, max_position_embeddings=128, **changes)
    own, kept = {value.data_ptr() for value in model.parameters()}, dict[int, torch.Tensor]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    keeping = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with keeping, torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = model.model(**batch(2, 128))
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    scope = Scope(gaps=1, length=128)
    stack = layerimp.find_blocks(model.to(torch.bfloat16) if half else model)
    parts = needed(stack, DistillConfig(), Plan("all", 2, 2), scope)
    counted = parts["activations"] + parts["scores of attention"]
    assert measured <= counted <= 3 * measured
    assert output.last_hidden_state.requires_grad


@pytest.mark.parametrize("make", [tiny_model, tiny_classifier])
def test_rows_that_run_one_after_another_take_the_same_step(make: Callable[[], PreTrainedModel]) -> None:
    """The gradient of rows of unequal length, by what Adam keeps of it after a step."""
    gradients: list[torch.Tensor] = []

    def look(case: Case) -> None:
        config, teaching = DistillConfig(steps=1, rate=1e-3), Teaching(case)
        nearer = replace_field(case, distance=lambda: at(1.0))
        for at_once in (4, 2, 1):
            with learning(case, "all", width=1, rank=1) as learner:
                task = Task(nearer, learner, teaching, config, Plan("all", 4, at_once))
                run = Training(task, Memory(None), Outcome(at(2), at(2)), 0)
                run.run()
                kept = [run._descent.optimizer.state[parameter]["exp_avg"] for parameter in learner.parameters]
                gradients.append(torch.cat([value.flatten() for value in kept]))

    layerimp.heal(sharp(make()), [1], [padded_batch((16, 2, 9, 2, 12, 2, 7, 2))], Seen(look))
    whole, *parts = gradients
    for gradient in parts:
        assert float((gradient - whole).norm() / whole.norm()) < 0.01


def test_the_random_generators_stay() -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    expected = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    healed(tiny_model(), steps=2)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == expected


def test_lora_adapts_linear_maps_beside_fused_experts() -> None:
    """Given the whole model, peft would adapt the experts in place of dense MLPs and shared experts."""
    size = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
    size |= {"num_key_value_heads": 4, "intermediate_size": 48, "moe_intermediate_size": 16, "first_k_dense_replace": 2}
    size |= {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "q_lora_rank": 8}
    size |= {"kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
    torch.manual_seed(0)
    model = sharp(DeepseekV3ForCausalLM(DeepseekV3Config(**size)).eval())
    paths: list[set[str]] = []

    def look(case: Case) -> None:
        with learning(case, "lora", width=1, rank=2) as learner:
            paths.append(set(learner.values))

    see(model, look)
    assert "model.layers.0.mlp.gate_proj.weight" in paths[0]
    assert "model.layers.2.mlp.shared_experts.down_proj.weight" in paths[0]
    scope = Scope(gaps=1, length=16)
    words = Distill(DistillConfig(learns="lora")).decide(layerimp.find_blocks(model), scope, Room("cpu", 2**30)).words
    left = 2 * (4 * 3 * 16 * 32 + 4 * 32)  # two blocks with four experts of three maps, and their routers
    assert words.endswith(f"; {left:,} values in other matrices than linear maps, such as experts, do not learn")


def test_float16_on_a_cpu_is_refused_before_any_training() -> None:
    with pytest.raises(ModelError, match=r"distill cannot train in float16 on a CPU: use --dtype float32 or bfloat16"):
        healed(tiny_model().half(), steps=3)


def test_a_classifier_learns_from_its_teacher() -> None:
    healing = healed(tiny_classifier(), gone=[1, 2], steps=20)
    assert healing.accuracy["healed"] >= healing.accuracy["pruned"]


def test_limits() -> None:
    limits = Limits(steps=10, tokens=1000, minutes=2.0)
    assert limits.spent(5, 100, 12.0) == 0.5
    assert limits.spent(1, 900, 12.0) == 0.9
    assert limits.spent(1, 100, 96.0) == 0.8


@pytest.mark.parametrize(
    ("seconds", "lost", "trained", "left"),
    [(12, 0, 0, 4.5), (12, 60, 0, 3.5), (90, 300, 0, 2.5), (12, 180, 30, 1.5), (12, 600, 30, 0.5)],
)
def test_a_time_limit_holds_other_work_too(seconds: float, lost: float, trained: float, left: float) -> None:
    """A training that begins has half of the time at least; one that goes on ends when the time is over."""
    assert Limits.of(DistillConfig(minutes=5), seconds, lost, trained).minutes == left
    assert Limits.of(DistillConfig(steps=7), seconds, lost, trained) == Limits(7, None, None)


@pytest.mark.parametrize("stop", [None, 2, 5])
def test_the_time_of_interrupted_runs_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int | None) -> None:
    """By a clock of the test's own, on which only steps take time. In sum it is that of the limit."""
    clock = [0.0]
    monkeypatch.setattr("layerimp_distill.training.time.monotonic", lambda: clock[0])

    def slow(case: Case, stop: int | None) -> Teaching:
        teaching = interrupted(case, stop)

        def loss(inputs: Any) -> torch.Tensor:
            clock[0] += 5.0
            return teaching.divergence(inputs)[0]

        return lowering(case, loss)

    def look(case: Case) -> None:
        options = {"minutes": 1, "checks": 2, "rate": 1e-6}
        with learning(case, "beside", width=1, rank=1) as learner:
            if stop is not None:
                with pytest.raises(KeyboardInterrupt):
                    trained(case, learner, slow(case, stop), Always(tmp_path), **options)
            trained(case, learner, slow(case, None), Always(tmp_path), **options)

    see(tiny_model(), look)
    assert clock[0] == pytest.approx(60, abs=5), "but for a step"


def test_all_but_the_first_healer_counts_for_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test's own, on which only measurements take time: ten seconds each."""
    clock, limits = [0.0], list[float | None]()
    monkeypatch.setattr("layerimp_distill.distill.time.monotonic", lambda: clock[0])
    judge, of = Judge.of, Limits.of

    def slow(self: Judge, stack: Any) -> Distance:
        clock[0] += 10.0
        return judge(self, stack)

    def noted(config: DistillConfig, seconds: float, lost: float, trained: float = 0.0) -> Limits:
        limits.append(of(config, seconds, lost, trained).minutes)
        return of(config, seconds, lost, trained)

    monkeypatch.setattr(Judge, "of", slow)
    monkeypatch.setattr("layerimp_distill.training.Limits", SimpleNamespace(of=noted))
    healed(tiny_model(), steps=1, minutes=5, first=None)
    assert limits == [pytest.approx(5 - (2 + AFTER) * 10 / 60)]


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


def test_the_rate_rises_and_falls() -> None:
    assert [round(schedule(spent), 3) for spent in (0.0, 0.025, 0.05, 0.5, 1.0)] == [0.2, 0.499, 0.994, 0.5, 0.0]
    assert schedule(0.3, 0.2) == 0.5 * (1 + math.cos(0.3 * math.pi))
    assert schedule(0.3, 0.3) == pytest.approx(0.2 * schedule(0.3)), "it rises anew after going back"
