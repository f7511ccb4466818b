"""A healer is kept to its contract, and what it made is kept only if that is better."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.healing_cases import rows
from support.heard import Heard
from support.tiny import tiny
from transformers import AutoModelForCausalLM

import layerimp
from layerimp import Healer
from layerimp.blocks.equivalence import stored_tensors
from layerimp.calibration.splits import split
from layerimp.errors import ModelError, NonFiniteError, PluginError
from layerimp.fidelity import Distance
from layerimp.healer import Case, Gap, Repair
from layerimp.healing import replace
from layerimp.healing.engine import Healed, heal_beside
from layerimp.healing.judging import Judge
from layerimp.healing.loss import HeldOutLoss
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import converted
from layerimp.report.words import recovery
from layerimp.surgery.removal import prepare
from layerimp.testing import batch


class Doing(Healer):
    """Calls a function that the test gives."""

    name = "doing"

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what

    def heal(self, case: Case) -> list[Repair]:
        return self.what(case) or [Repair(gap, "something") for gap in case.gaps]


def healed(model: Any, gone: Sequence[int], what: Any, text: Any = None) -> Any:
    """What comes of a healer that does so."""
    intact = find_blocks(model)
    pruned = find_blocks(prepare(intact, gone).beside())
    return heal_beside(intact, pruned, gone, text or [batch(8, 12, seed=3)], Doing(what))


def test_an_edited_healer_gets_another_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state that the old code has left is not continued."""
    workspaces: list[Path | None] = []

    def heal() -> None:
        doing = Doing(lambda case: workspaces.append(case.workspace()))
        layerimp.heal(tiny("llama"), [1], [batch(8, 12, seed=3)], doing)

    heal()
    heal()
    edited = tmp_path / "edited.py"
    edited.write_text(Path(__file__).read_text() + "# edited\n")
    monkeypatch.setattr(sys.modules[__name__], "__file__", str(edited))
    heal()
    first, again, after = workspaces
    assert first == again
    assert None not in (first, after)
    assert after != first


def test_what_a_classifier_recovers_is_accuracy() -> None:
    loss = {"intact": 1.0, "pruned": 2.0, "healed": 3.0}
    shares = {"intact": 0.9, "pruned": 0.5, "healed": 0.7}
    model = tiny("llama")
    assert Healed(model, [], loss).recovered == -1.0
    assert Healed(model, [], loss, shares).recovered == pytest.approx(0.5)
    assert Healed(model, [], loss, {**shares, "pruned": 0.9}).recovered is None


def test_a_healed_model_is_counted_from_the_pruned_one() -> None:
    """The text is the model's own: the pruned model is wrong and sure of it, and each healing makes it less sure."""
    model = tiny("llama")
    with torch.no_grad():
        for value in (each for each in model.parameters() if each.ndim == 2):
            value.mul_(6)
    ids = model.generate(torch.arange(1, 9)[:, None], max_new_tokens=11, min_new_tokens=11, do_sample=False)
    text = [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    intact, gone = find_blocks(model), [1]

    def less_sure(case: Case) -> None:
        replace(case.pruned.model, "lm_head.weight", 0.5 * case.pruned.model.get_parameter("lm_head.weight"))

    def heal(pruned: Any) -> Healed:
        return heal_beside(intact, find_blocks(pruned), gone, text, Doing(less_sure))

    unhealed = prepare(intact, gone).beside()
    first = heal(unhealed)
    assert set(first.loss) == {"intact", "pruned", "healed"}
    assert first.loss["healed"] < first.loss["pruned"]
    second = heal(first.model)
    assert list(second.loss) == ["intact", "pruned", "healed_before", "healed"]
    assert second.loss["pruned"] == pytest.approx(first.loss["pruned"], rel=1e-5)
    assert second.loss["healed_before"] == first.loss["healed"]
    assert first.distance["divergence_after"] < first.distance["divergence_before"]
    assert second.distance["divergence_before"] == first.distance["divergence_after"]
    losses = second.loss
    share = (losses["pruned"] - losses["healed"]) / (losses["pruned"] - losses["intact"])
    assert second.recovered == pytest.approx(share)
    words = recovery(second.loss, second.accuracy, second.recovered)
    assert f"healed before {losses['healed_before']:.3f}" in words
    assert f"; {first.recovered:.0%} had come back before this healing" in words


def test_a_model_that_is_worse_is_put_back() -> None:
    def blur(case: Case) -> None:
        replace(case.pruned.model, "lm_head.weight", 30 * case.pruned.model.get_parameter("lm_head.weight"))

    healing = healed(tiny("llama"), [1], blur)
    assert healing.loss["healed"] == healing.loss["pruned"]
    assert healing.changed == []
    assert healing.distance["divergence_after"] == healing.distance["divergence_before"]
    assert healing.repairs[0].why.startswith("doing was taken back: the divergence went from ")
    assert healing.repairs[0].why.endswith(", which is not clearly nearer to the intact model")


def _noise(case: Case, scale: float) -> None:
    path = "model.layers.0.mlp.down_proj.weight"
    old = case.pruned.model.get_parameter(path)
    replace(case.pruned.model, path, old + scale * rows(*old.shape, 5))


def _write_in_place(case: Case) -> None:
    with torch.no_grad():
        case.pruned.model.get_parameter("model.norm.weight").mul_(2)


def _raise_half_way(case: Case) -> None:
    _noise(case, 1.0)
    raise RuntimeError("half way")


def _forge(case: Case) -> None:
    module = case.pruned.model.get_submodule("model.norm")
    module.weight = torch.nn.Parameter(torch.full((32,), torch.inf))


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        (_raise_half_way, PluginError, "healer 'doing' .* failed: RuntimeError: half way"),
        (_write_in_place, PluginError, "changed the weight model.norm.weight; "),
        (_forge, NonFiniteError, "the new value of model.norm.weight holds a NaN or an infinity"),
        (lambda case: ["done"], PluginError, "does not give a list of Repair"),
        (lambda case: [Repair(case.gaps[0], "x")] * 2, PluginError, "tells of 2 gaps"),
    ],
)
def test_a_healer_that_breaks_its_contract_is_named(what: Any, error: type[Exception], text: str) -> None:
    model = tiny("llama")
    intact = find_blocks(model)
    pruned = find_blocks(prepare(intact, [1]).beside())
    shared = {path: id(value) for path, value in stored_tensors(pruned.model).items()}
    with pytest.raises(error, match=text):
        heal_beside(intact, pruned, [1], [batch(4, 8)], Doing(what))
    assert {path: id(value) for path, value in stored_tensors(pruned.model).items()} == shared


@pytest.mark.parametrize(("measure", "call"), [(Judge, 2), (HeldOutLoss, 3)], ids=["judging", "measuring"])
def test_what_cannot_be_measured_leaves_the_pruned_model_as_before(
    measure: type, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def failing(self: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise NonFiniteError("the logits hold a NaN")
        return real(self, *arguments)

    real = measure.of  # type: ignore[attr-defined]
    intact = find_blocks(tiny("llama"))
    pruned = find_blocks(prepare(intact, [1]).beside())
    shared = {path: id(value) for path, value in stored_tensors(pruned.model).items()}
    monkeypatch.setattr(measure, "of", failing)
    with pytest.raises(NonFiniteError, match="hold a NaN"):
        heal_beside(intact, pruned, [1], [batch(4, 8)], Doing(lambda case: _noise(case, 1e-6)))
    assert calls == call
    assert {path: id(value) for path, value in stored_tensors(pruned.model).items()} == shared


def test_what_is_kept_is_judged_by_rows_of_its_own() -> None:
    model = tiny("llama")
    judged = [batch(4, 20, seed=9)]
    intact = find_blocks(model)
    pruned = find_blocks(prepare(intact, [1]).beside())
    seen: list[Distance] = []

    def look(case: Case) -> None:
        seen.append(case.distance())

    heal_beside(intact, pruned, [1], [batch(8, 12, seed=3)], Doing(look), judging=judged)
    assert seen == [Judge(intact, judged).of(pruned)]
    heal_beside(intact, pruned, [1], [batch(8, 12, seed=3)], Doing(look))
    (row,) = split([batch(8, 12, seed=3)]).choosing
    assert seen[1] == Judge(intact, [row]).of(pruned), "without such rows, those held out for choices"


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ([1], [2]),
        ([2], [1]),
        ([0, 3], [1, 2]),
    ],
)
def test_what_is_said_to_be_removed_is_compared_with_the_weights(gone: list[int], said: list[int]) -> None:
    intact = find_blocks(tiny("llama"))
    pruned = find_blocks(prepare(intact, gone).beside())
    with pytest.raises(ModelError, match=r"of block \d of the intact one, and not of \d: something else was removed"):
        heal_beside(intact, pruned, said, [batch(4, 8)], Doing(lambda case: None))
    trained = pruned[0].mlp.down_proj
    trained.weight = torch.nn.Parameter(trained.weight + 1)  # matches no matrix of the intact model
    heal_beside(intact, pruned, gone, [batch(4, 8)], Doing(lambda case: None))


@pytest.mark.parametrize("judging", [[], [batch(4, 20, seed=9)]], ids=len)
def test_a_model_judged_by_the_rows_of_choices_is_told_of(judging: list[Any]) -> None:
    notes = Heard()
    doing = Doing(lambda case: None)
    layerimp.heal(tiny("llama"), [1], [batch(8, 12, seed=3)], doing, judging=iter(judging), progress=notes)
    told = "what healing keeps is decided by the rows that options are chosen by; better by rows of other documents"
    assert notes.lines == ([] if judging else [f"{told} (judging)"])


def test_models_that_do_not_belong_together_are_refused() -> None:
    model = tiny("llama")
    pruned = prepare(find_blocks(model), [1]).beside()
    text = [batch(4, 8)]
    for other, gone, why in (
        (tiny("mistral"), [1], "is a LlamaForCausalLM, and the intact one a MistralForCausalLM"),
        (tiny("llama", hidden_size=64), [1], "32 wide, and the intact one 64"),
        (tiny("llama", vocab_size=101), [1], "97 token ids, and the intact one 101"),
        (model, [1, 2], r"the pruned model has 3 blocks in place of 2 \(4 without 2\)"),
    ):
        with pytest.raises(ModelError, match=why):
            layerimp.heal(other, gone, text, Doing(lambda case: None), pruned=pruned)
    with pytest.raises(ModelError, match="nothing was removed"):
        layerimp.heal(model, [], text, Doing(lambda case: None), pruned=tiny("llama"))


def test_a_repair_holds_finite_numbers() -> None:
    gap = Gap((1,), None, None, 1, None, "")
    with pytest.raises(NonFiniteError, match="the factor at block 1 is nan"):
        Repair(gap, "x", numbers={"factor": float("nan")})


@pytest.mark.parametrize("healer", ["linear", "rescale"])
def test_a_half_precision_checkpoint_stays_one(healer: str, tmp_path: Any) -> None:
    """Healed in float32 and saved in bfloat16 without loss: the measured model is the saved one."""
    tiny("gpt2", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    layerimp.testing.tiny_tokenizer().save_pretrained(tmp_path / "half")
    model, _ = layerimp.load(tmp_path / "half", dtype="float32")
    healing = layerimp.heal(model, [1, 3], [batch(8, 16, seed=1)], healer)  # one row to choose by: any gain is taken
    assert healing.changed
    assert all(converted(healing.model.get_parameter(path), torch.bfloat16) is not None for path in healing.changed)
    layerimp.save(healing.model, None, tmp_path / "healed")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "healed", dtype="auto")
    assert again.dtype == torch.bfloat16
    for path in healing.changed:
        assert torch.equal(again.get_parameter(path).float(), healing.model.get_parameter(path))
