"""The tools of healers, against independent computations: gaps, states, sums, and the scaling of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from support.tiny import ALL, EXPERTS, PARALLEL, POST_NORM, classifier, tiny
from transformers import AutoModelForCausalLM

import layerimp
from layerimp import Healer
from layerimp.blocks.equivalence import first_difference, last_hidden, stored_tensors
from layerimp.errors import CalibrationError, ModelError, NonFiniteError, PluginError
from layerimp.healer import Case, Gap, Loss, Repair
from layerimp.healing import Gram, replace, scale_stream, states, stream_scaled, trying
from layerimp.healing.engine import Healed, heal_beside
from layerimp.healing.gaps import find_gaps
from layerimp.healing.loss import HeldOutLoss, split
from layerimp.models.discovery import find_blocks
from layerimp.models.dtypes import holds
from layerimp.steps import Step, Sublayer, removed_by
from layerimp.surgery.removal import prepare
from layerimp.testing import batch, padded_batch

GONE: tuple[Step, ...] = (1, "1/2")
"""A block and a seam: gaps before an attention, and before an MLP."""
FREE_NORMS = frozenset({"olmo2"})
"""A model with norms only after sublayers, so that attention reads the stream directly."""


def case_of(model: Any, gone: Sequence[Step], batches: list[Any] | None = None) -> Case:
    intact = find_blocks(model)
    pruned = find_blocks(prepare(intact, gone).beside())
    text = batches or [batch(4, 16, seed=1), padded_batch((12, 5, 9))]
    return Case(intact, pruned, find_gaps(pruned, gone), text, text[:1], lambda: 0.0)


class Doing(Healer):
    """Calls a function that the test gives."""

    name = "doing"

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what

    def heal(self, case: Case) -> list[Repair]:
        return self.what(case) or [Repair(gap, "something") for gap in case.gaps]


def healed(model: Any, gone: Sequence[int], what: Any, text: Any = None) -> Any:
    intact = find_blocks(model)
    pruned = find_blocks(prepare(intact, gone).beside())
    return heal_beside(intact, pruned, gone, text or [batch(8, 12, seed=3)], Doing(what))


def sublayers(*blocks: int) -> tuple[Sublayer, ...]:
    return tuple(sorted(removed_by(blocks)))


def test_gaps_are_the_runs_of_removed_blocks() -> None:
    gaps = case_of(tiny("llama", num_hidden_layers=8), [6, 0, 2, 3, 7]).gaps
    assert [(gap.removed, gap.before, gap.after, gap.position) for gap in gaps] == [
        (sublayers(0), None, (1, "attn"), (0, "attn")),
        (sublayers(2, 3), (1, "mlp"), (4, "attn"), (1, "attn")),
        (sublayers(6, 7), (5, "mlp"), None, (3, "attn")),
    ]
    assert [str(gap) for gap in gaps] == ["block 0", "blocks 2-3", "blocks 6-7"]
    assert (gaps[0].writer, gaps[0].obstacle) == (None, "nothing is before it")
    assert [gap.writer.path for gap in gaps[1:] if gap.writer] == [
        "model.layers.0.mlp.down_proj",
        "model.layers.2.mlp.down_proj",
    ]


def test_gaps_of_seams_lie_inside_blocks() -> None:
    gaps = case_of(tiny("llama", num_hidden_layers=8), ["1/2", 4, "6/7", "5/6"]).gaps
    assert [(gap.removed, gap.before, gap.after, gap.position) for gap in gaps] == [
        (((1, "mlp"), (2, "attn")), (1, "attn"), (2, "mlp"), (1, "mlp")),
        (sublayers(4), (3, "mlp"), (5, "attn"), (3, "attn")),
        (((5, "mlp"), (6, "attn"), (6, "mlp"), (7, "attn")), (5, "attn"), (7, "mlp"), (3, "mlp")),
    ]
    assert [str(gap) for gap in gaps] == ["seam 1/2", "block 4", "5.mlp to 7.attn"]
    assert [gap.steps for gap in gaps] == [["1/2"], [4], ["5/6", "6/7"]]
    assert [gap.writer.path for gap in gaps if gap.writer] == [
        "model.layers.1.self_attn.o_proj",
        "model.layers.2.mlp.down_proj",
        "model.layers.3.self_attn.o_proj",
    ]


def test_steps_that_touch_are_one_gap() -> None:
    """A seam and then the block that it left are together blocks 1 and 2, in either notation."""
    model = tiny("llama")
    removal = prepare(find_blocks(model), ["1/2", "1.attn,2.mlp"])
    assert removal.gone == [1, 2]
    found = layerimp.heal(model, ["1/2", "1.attn,2.mlp"], [batch(8, 12, seed=3)], "rescale")
    assert [str(repair.gap) for repair in found.repairs] == ["blocks 1-2"]


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("name", ALL)
def test_the_writer_is_what_the_stream_follows(name: str, gone: Step) -> None:
    """A change of the writer's map, or of the norm after it, is the only thing that changes the stream at the gap."""
    if gone != 1 and name in PARALLEL:
        return
    case = case_of(tiny(name), [gone])
    (gap,) = case.gaps
    assert (gap.writer is None) == (gone == 1 and name in EXPERTS)
    if gap.writer is None:
        assert "experts" in gap.obstacle
        return
    assert gap.writer.joined == (name in POST_NORM)
    before = next(states(case, gap, case.batches))
    with trying(case.pruned.model):
        for part in dict(case.pruned.model.get_submodule(gap.writer.path).named_parameters()):
            path = f"{gap.writer.path}.{part}"
            replace(case.pruned.model, path, 2 * case.pruned.model.get_parameter(path))
        after = next(states(case, gap, case.batches))
    assert before.read is not None
    assert torch.equal(before.read, after.read)
    assert torch.equal(2 * before.written, after.written)
    if gap.writer.norm is None:
        expected = before.stream + gap.writer.scale * before.written
        assert torch.allclose(after.stream, expected, atol=1e-4, rtol=1e-4)
        assert after.normed is None
    elif not gap.writer.joined:  # a norm cancels what doubles all that it reads
        assert torch.allclose(after.stream, before.stream, atol=1e-2, rtol=1e-2)


def first_read(model: Any, module: torch.nn.Module, text: Any) -> torch.Tensor:
    """The input of a module in a run of its model."""
    read: list[torch.Tensor] = []
    with module.register_forward_pre_hook(lambda _module, args: read.append(args[0])), torch.no_grad():
        model(**text)
    return read[0]


def test_states_inside_blocks_are_those_of_the_two_models() -> None:
    """Against the input of the second norm of a block, which is the stream between attention and MLP."""
    model = tiny("llama", num_hidden_layers=6)
    case = case_of(model, ["1/2", "4/5"])
    for gap, intact, pruned in zip(case.gaps, (2, 5), (1, 3), strict=True):
        for text, state in zip(case.batches, states(case, gap, case.batches), strict=True):
            real = text["attention_mask"].bool()
            for found, whose, deep in ((state.target, model, intact), (state.stream, case.pruned.model, pruned)):
                read = first_read(whose, whose.model.layers[deep].post_attention_layernorm, text)
                assert torch.allclose(found, read[real], atol=1e-5)


def test_states_are_those_of_the_two_models() -> None:
    """Against the hidden states that Transformers itself returns, which have no final norm before the last block."""
    model = tiny("llama", num_hidden_layers=6)
    case = case_of(model, [1, 2, 4])
    for gap, intact, pruned in zip(case.gaps, (3, 5), (1, 2), strict=True):
        for text, state in zip(case.batches, states(case, gap, case.batches), strict=True):
            real = text["attention_mask"].bool()
            for found, whose, deep in ((state.target, model, intact), (state.stream, case.pruned.model, pruned)):
                with torch.no_grad():
                    hidden = whose(**text, output_hidden_states=True).hidden_states[deep]
                assert torch.allclose(found, hidden[real], atol=1e-5)


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.lists(st.integers(1, 20), min_size=1, max_size=4), st.booleans())
def test_gram_is_least_squares(features: int, outputs: int, parts: list[int], weighted: bool) -> None:
    """Against torch.linalg.lstsq on all rows at once, with the ridge as further rows, with and without merging."""
    ridge = 0.1
    x, y = rows(sum(parts), features, 0), rows(sum(parts), outputs, 1)
    weight = rows(sum(parts), 1, 2)[:, 0].square() + 0.1 if weighted else torch.ones(sum(parts))
    whole = Gram(features, outputs)
    for chunk, part, shares in zip(x.split(parts), y.split(parts), weight.split(parts), strict=True):
        shard = Gram(features, outputs)
        shard.add(chunk, part, shares if weighted else None)
        whole.merge(shard)
    root = weight.double().sqrt()[:, None]
    mean = (root * x.double()).square().sum() / features
    tall = torch.cat([root * x.double(), (ridge * mean).sqrt() * torch.eye(features, dtype=torch.float64)])
    aims = torch.cat([root * y.double(), torch.zeros(features, outputs, dtype=torch.float64)])
    expected = torch.linalg.lstsq(tall, aims).solution.T
    fit = whole.solve(ridge)
    assert torch.allclose(fit, expected, atol=1e-8)
    error = ((root * (y.double() - x.double() @ fit.T)).square().sum() / weight.double().sum()).item()
    assert whole.error(fit) == pytest.approx(error, abs=1e-9)
    assert whole.rows == sum(parts)


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("name", ALL)
def test_scaling_later_writers_is_scaling_the_stream(name: str, gone: Step) -> None:
    if gone != 1 and name in PARALLEL:
        return
    case = case_of(tiny(name), [gone])
    (gap,) = case.gaps
    if name in POST_NORM | FREE_NORMS:
        with pytest.raises(ModelError, match="its norms do not cancel a factor of the whole stream"):
            scale_stream(case.pruned, gap, 1.7)
        assert first_difference(case.pruned.model, find_blocks(prepare(case.intact, [gone]).beside()).model) is None
        return
    with stream_scaled(case.pruned, gap, 1.7):
        expected = last_hidden(case.pruned)
    before = last_hidden(case.pruned)
    scale_stream(case.pruned, gap, 1.7)
    found = last_hidden(case.pruned)
    assert (found - expected).abs().max() < 5e-3 * expected.abs().max()  # up to the eps of the norms
    assert (before - expected).abs().max() > 1e-2 * expected.abs().max()


def test_what_cannot_be_scaled_is_refused() -> None:
    model = tiny("llama")
    end = case_of(model, [3])
    with pytest.raises(ModelError, match="nothing but the final norm comes after"):
        scale_stream(end.pruned, end.gaps[0], 2.0)
    for block in find_blocks(model)[2:]:
        block.mlp.down_proj.weight = find_blocks(model)[2].mlp.down_proj.weight
    shared = case_of(model, [1])
    with pytest.raises(ModelError, match=r"shares .*down_proj"):
        scale_stream(shared.pruned, shared.gaps[0], 2.0)
    gap = case_of(model, [3]).gaps[0]
    assert gap.writer is None or gap.before != (3, "mlp")


def test_replacing_leaves_the_intact_model_and_keeps_ties() -> None:
    model = tiny("llama", tie_word_embeddings=True)
    before = {path: value.clone() for path, value in model.state_dict().items()}
    pruned = prepare(find_blocks(model), [1]).beside()
    untouched = pruned.model.layers[0].mlp.up_proj.weight
    replace(pruned, "model.embed_tokens.weight", 2 * pruned.model.embed_tokens.weight)
    assert pruned.lm_head.weight is pruned.model.embed_tokens.weight
    assert untouched is model.model.layers[0].mlp.up_proj.weight
    assert all(torch.equal(value, before[path]) for path, value in model.state_dict().items())
    with pytest.raises(PluginError, match="has no parameter"):
        replace(pruned, "model.layers.9.nothing", torch.zeros(1))
    with pytest.raises(PluginError, match="has the shape"):
        replace(pruned, "model.norm.weight", torch.zeros(1))
    with pytest.raises(NonFiniteError, match="holds a NaN"):
        replace(pruned, "model.norm.weight", torch.full((32,), torch.nan))


def test_values_are_rounded_to_the_stored_dtype(tmp_path: Any) -> None:
    tiny("llama", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    layerimp.testing.tiny_tokenizer().save_pretrained(tmp_path / "half")
    model, _ = layerimp.load(tmp_path / "half", dtype="float32")
    pruned = prepare(find_blocks(model), [1]).beside()
    replace(pruned, "model.norm.weight", torch.full((32,), 1 / 3))
    assert pruned.model.norm.weight.dtype == torch.float32
    assert torch.equal(pruned.model.norm.weight, torch.full((32,), 1 / 3).bfloat16().float())


def test_text_is_split_by_rows() -> None:
    text = [batch(5, 6, seed=0), batch(6, 6, seed=1), batch(5, 6, seed=2)]
    parts = split(text)
    ids = torch.cat([one["input_ids"] for one in text])
    chosen = {name: torch.cat([one["input_ids"] for one in part]) for name, part in vars(parts).items()}
    assert torch.equal(chosen["choosing"], ids[[6, 14]])
    assert torch.equal(chosen["measuring"], ids[[7, 15]])
    assert torch.equal(chosen["healing"], ids[[*range(6), *range(8, 14)]])
    assert [len(part[0]["input_ids"]) for part in vars(split([batch(4, 6)])).values()] == [2, 1, 1]
    with pytest.raises(CalibrationError, match="at least three rows"):
        split([batch(2, 6)])


@pytest.mark.parametrize(("rows", "held_out"), [(512, 64), (513, 57), (2000, 62), (6400, 64)])
def test_no_more_rows_are_held_out_than_are_worth_their_cost(rows: int, held_out: int) -> None:
    """One row in eight is held out for each purpose up to 512 rows, then one in nine, and so on."""
    parts = split([batch(100, 3, seed=seed) for seed in range(rows // 100)] + [batch(rows % 100, 3)] * (rows % 100 > 0))
    counts = {name: sum(len(one["input_ids"]) for one in part) for name, part in vars(parts).items()}
    assert counts == {"healing": rows - 2 * held_out, "choosing": held_out, "measuring": held_out}


@pytest.mark.parametrize("made", [tiny("gpt2"), classifier("bert").float()], ids=["next-token", "label"])
def test_the_loss_is_that_of_the_model(made: Any) -> None:
    text = [batch(3, 9, seed=4), padded_batch((7, 4))]
    labels = [torch.tensor([0, 2, 1]), torch.tensor([1, 1])]
    labelled = made.config.architectures is None and hasattr(made, "classifier")
    if labelled:
        text = [one | {"labels": label} for one, label in zip(text, labels, strict=True)]
    stack = find_blocks(made)
    losses, count, hits = 0.0, 0, 0
    with torch.no_grad():
        for one in text:
            logits = made(input_ids=one["input_ids"], attention_mask=one["attention_mask"]).logits.double()
            real = one["attention_mask"].bool()
            if labelled:
                found = -logits.log_softmax(-1).gather(1, one["labels"][:, None])
                hits += int((logits.argmax(-1) == one["labels"]).sum())
            else:
                ids = one["input_ids"][:, 1:, None]
                found = -logits[:, :-1].log_softmax(-1).gather(2, ids)[..., 0][real[:, 1:] & real[:, :-1]]
            losses, count = losses + float(found.sum()), count + found.numel()
    loss = HeldOutLoss(stack, text).of(stack)
    assert loss.mean == pytest.approx(losses / count, rel=1e-5)
    assert len(loss.totals) == 5
    assert loss.accuracy == (hits / 5 if labelled else None)


def test_a_gain_is_clear_by_a_paired_t_statistic() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(20):
        before = torch.rand(9, generator=generator).mul(5)
        after = before - 0.02 * (seed - 10) - 0.1 * torch.randn(9, generator=generator)
        plain = Loss(after.tolist(), [1] * 9)
        statistic = float((before - after).mean() / (before - after).std() * 3)
        gain, error = plain.gain_over(Loss(before.tolist(), [1] * 9))
        assert gain / error == pytest.approx(statistic, rel=1e-4)
        assert plain.is_clearly_below(Loss(before.tolist(), [1] * 9)) == (statistic > 1)
    assert Loss([3.0], [4]).is_clearly_below(Loss([3.1], [4]))  # a single row has no error
    assert Loss([3.0, 6.0], [1, 2]).gain_over(Loss([4.0, 8.0], [1, 2])) == (1.0, 0.0)  # longer rows gain more


def test_what_a_classifier_recovers_is_accuracy() -> None:
    loss = {"intact": 1.0, "pruned": 2.0, "healed": 3.0}
    shares = {"intact": 0.9, "pruned": 0.5, "healed": 0.7}
    model = tiny("llama")
    assert Healed(model, [], loss).recovered == -1.0
    assert Healed(model, [], loss, shares).recovered == pytest.approx(0.5)
    assert Healed(model, [], loss, {**shares, "pruned": 0.9}).recovered is None


def test_a_model_that_is_worse_is_put_back() -> None:
    def blur(case: Case) -> None:
        replace(case.pruned.model, "lm_head.weight", 30 * case.pruned.model.get_parameter("lm_head.weight"))

    found = healed(tiny("llama"), [1], blur)
    assert found.loss["healed"] == found.loss["pruned"]
    assert found.changed == []
    assert "was taken back: it lowered the held-out loss by -" in found.repairs[0].why


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
        (_write_in_place, PluginError, "wrote into model.norm.weight in place"),
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


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ([1], [2]),
        ([1], ["1/2"]),
        (["1/2"], [1]),
        (["1/2"], [2]),
        (["1/2"], ["0/1"]),
        ([2], ["1/2"]),
        ([0, "2/3"], [1, 2]),
    ],
)
def test_what_is_said_to_be_removed_is_compared_with_the_weights(gone: list[Step], said: list[Step]) -> None:
    intact = find_blocks(tiny("llama"))
    pruned = find_blocks(prepare(intact, gone).beside())
    with pytest.raises(ModelError, match=r"of block \d of the intact one, and not of \d: something else was removed"):
        heal_beside(intact, pruned, said, [batch(4, 8)], Doing(lambda case: None))
    trained = pruned[0].mlp.down_proj
    trained.weight = torch.nn.Parameter(trained.weight + 1)  # matches no matrix of the intact model
    heal_beside(intact, pruned, gone, [batch(4, 8)], Doing(lambda case: None))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_reason_against_scaling(dtype: torch.dtype) -> None:
    for gone in (1, "1/2", "2/3"):
        case = case_of(tiny("llama", dtype=dtype), [gone])
        scale_stream(case.pruned, case.gaps[0], 1.5)


def test_models_that_do_not_belong_together_are_refused() -> None:
    model = tiny("llama")
    pruned = prepare(find_blocks(model), [1]).beside()
    text = [batch(4, 8)]
    for other, gone, why in (
        (tiny("mistral"), [1], "is a LlamaForCausalLM, and the intact one a MistralForCausalLM"),
        (tiny("llama", hidden_size=64), [1], "32 wide, and the intact one 64"),
        (tiny("llama", vocab_size=101), [1], "97 token ids, and the intact one 101"),
        (model, [1, 2], "leaves 2, and the pruned model has 3"),
    ):
        with pytest.raises(ModelError, match=why):
            layerimp.heal(other, gone, text, Doing(lambda case: None), pruned=pruned)
    with pytest.raises(ModelError, match="nothing was removed"):
        layerimp.heal(model, [], text, Doing(lambda case: None), pruned=tiny("llama"))


def test_a_repair_holds_finite_numbers() -> None:
    gap = Gap(sublayers(1), None, None, Sublayer(1, "attn"), None, "")
    with pytest.raises(NonFiniteError, match="the factor at block 1 is nan"):
        Repair(gap, "x", numbers={"factor": float("nan")})


def test_what_is_tried_is_put_back_unless_it_is_kept() -> None:
    model = tiny("llama")
    before = model.model.norm.weight
    with trying(model):
        replace(model, "model.norm.weight", 2 * before)
    assert model.model.norm.weight is before
    with trying(model) as keep:
        replace(model, "model.norm.weight", 2 * before)
        keep()
    assert torch.equal(model.model.norm.weight, 2 * before)


@pytest.mark.parametrize("healer", ["linear", "rescale"])
def test_a_half_precision_checkpoint_stays_one(healer: str, tmp_path: Any) -> None:
    """Healed in float32 and saved in bfloat16 without loss: the measured model is the saved one."""
    tiny("gpt2", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    layerimp.testing.tiny_tokenizer().save_pretrained(tmp_path / "half")
    model, _ = layerimp.load(tmp_path / "half", dtype="float32")
    found = layerimp.heal(model, [1, 3], [batch(8, 16, seed=1)], healer)  # one row to choose by: any gain is taken
    assert found.changed
    assert all(holds(torch.bfloat16, found.model.get_parameter(path)) for path in found.changed)
    layerimp.save(found.model, None, tmp_path / "healed")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "healed", dtype="auto")
    assert again.dtype == torch.bfloat16
    for path in found.changed:
        assert torch.equal(again.get_parameter(path).float(), found.model.get_parameter(path))
