"""The ablation sweep, against physical removal and a model whose blocks are changed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layerimp_baselines import BlockInfluence
from support.tiny import DECODERS, EXPERTS, classifier, each_of, tiny
from transformers import AutoConfig, AutoModelForCausalLM

import layerimp
from layerimp.errors import CalibrationError, ModelError, NonFiniteError
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import measure
from layerimp.surgery.removal import pruned
from layerimp.sweep import Ablation, Forward, Trace
from layerimp.sweep.cache import BlockCache
from layerimp.testing import BLOCKS, batch, padded_batch

PROBES = frozenset({0, 0.5, "mean"})
Found = dict[tuple[int, str], torch.Tensor]


class Collect(Scorer):
    """Keeps the log-probabilities of all targets, by block and site."""

    name = "collect"

    def __init__(self, num_blocks: int, probes: frozenset[Any] = PROBES) -> None:
        super().__init__(num_blocks)
        self.sweep = Ablation(probes)
        self.observes = self.sweep.sites
        self.found: dict[tuple[int, str], list[torch.Tensor]] = {}

    def update(self, trace: Trace) -> None:
        for site in self.observes:
            self.found.setdefault((trace.block, site), []).append(trace.acts[site][trace.mask].clone())

    def compute(self) -> Importance:
        return Importance(scores=[0.0] * self.num_blocks)


def collect(model: Any, batches: list[Any], *removed: int, probes: frozenset[Any] = PROBES) -> Found:
    scorer = Collect(BLOCKS - len(removed), probes)
    measure(layerimp.find_blocks(model), batches, {"collect": scorer}, removed=removed)
    return {key: torch.cat(values) for key, values in scorer.found.items()}


def log_probs(model: Any, batches: list[Any]) -> torch.Tensor:
    """The log-probabilities of the next tokens, or of the labels, from the whole model; padding on the right."""
    values = []
    for inputs in batches:
        with torch.no_grad():
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.log_softmax(
                -1
            )
        if "labels" in inputs:
            values.append(logits[range(len(logits)), inputs["labels"]])
        else:
            real = inputs["attention_mask"].bool()[:, 1:]
            values.append(logits[:, :-1].gather(-1, inputs["input_ids"][:, 1:, None])[..., 0][real])
    return torch.cat(values)


@pytest.mark.parametrize("architecture", each_of(DECODERS))
def test_a_skipped_block_is_a_removed_one(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float32 if architecture in EXPERTS else torch.float64)
    batches = [padded_batch((12, 5, 9)), batch(2, 7, seed=1)]
    collected = collect(model, batches, probes=frozenset({0}))
    torch.testing.assert_close(collected[0, Ablation.INTACT], log_probs(model, batches), rtol=0, atol=1e-5)
    for block in range(BLOCKS):
        if architecture == "gpt_neo":  # its blocks cannot be removed alone: their kind depends on the position
            layer = model.transformer.h[block]
            skip = layer.register_forward_hook(lambda _m, args, out: (args[0], *out[1:]))
            expected = log_probs(model, batches)
            skip.remove()
        else:
            with pruned(model, [block]):
                expected = log_probs(model, batches)
        torch.testing.assert_close(collected[block, Ablation.site(0)], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "llama", "gpt2"])
def test_classifiers_are_ablated_too(architecture: str) -> None:
    model, inputs = classifier(architecture), padded_batch()
    inputs["labels"] = torch.tensor([2, 0, 1])
    collected = collect(model, [inputs])
    for block in range(BLOCKS):
        with pruned(model, [block]):
            expected = log_probs(model, [inputs])
        torch.testing.assert_close(collected[block, Ablation.site(0)], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt_neox", "falcon", "bloom"])
def test_probes_are_those_of_blocks_changed_by_hand(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    batches = [padded_batch((12, 5, 9)), batch(2, 7, seed=1)]
    blocks = layerimp.find_blocks(model)

    def first(output: Any) -> torch.Tensor:
        return output if isinstance(output, torch.Tensor) else output[0]

    added: list[list[torch.Tensor]] = [[] for _ in blocks]
    for index, block in enumerate(blocks):
        handle = block.register_forward_hook(lambda _m, args, out, i=index: added[i].append(first(out) - args[0]))
        log_probs(model, batches)
        handle.remove()
    masks = [inputs["attention_mask"].bool() for inputs in batches]
    means = [torch.cat([d[m] for d, m in zip(of_block, masks, strict=True)]).mean(dim=0) for of_block in added]
    collected = collect(model, batches)
    for index, block in enumerate(blocks):
        for probe in (0.5, "mean"):

            def change(_m: Any, args: Any, out: Any, probe: Any = probe, index: int = index) -> Any:
                state = args[0] + (means[index] if probe == "mean" else probe * (first(out) - args[0]))
                return state if isinstance(out, torch.Tensor) else (state, *out[1:])

            handle = block.register_forward_hook(change)
            torch.testing.assert_close(collected[index, Ablation.site(probe)], log_probs(model, batches))
            handle.remove()


def test_bypassed_blocks_are_as_if_removed() -> None:
    model, batches = tiny("llama", dtype=torch.float64), [padded_batch()]
    collected = collect(model, batches, 1)
    with pruned(model, [1]):
        expected = log_probs(model, batches)
        torch.testing.assert_close(collected[0, Ablation.INTACT], expected)
    for position, index in enumerate([0, 2, 3]):
        with pruned(model, [1, index]):
            torch.testing.assert_close(collected[position, Ablation.site(0)], log_probs(model, batches))


@pytest.mark.parametrize("probes", [{0}, {0, 0.5}, {0, 1}, {0, "mean"}])
def test_what_is_known_is_not_run_again(probes: set[Any]) -> None:
    """L blocks for the intact model, L (L - 1) / 2 for each probe, and L more where the mean is asked for."""
    model, inputs = tiny("llama"), batch(3, 12)
    blocks: list[int] = []
    heads: list[int] = []
    for block in model.model.layers:  # a block that returns its stored output does not call its parts
        block.mlp.register_forward_hook(lambda _m, args, _out: blocks.append(len(args[0])))
    model.lm_head.register_forward_hook(lambda _m, args, _out: heads.append(args[0].shape[1]))
    collect(model, [inputs], probes=frozenset(probes))
    changes = len(probes - {1})
    assert blocks.count(3) == BLOCKS * (1 + ("mean" in probes)) + changes * BLOCKS * (BLOCKS - 1) // 2
    assert heads.count(33) == 1 + changes * BLOCKS


def test_ablations_share_one_sweep() -> None:
    first, second = Ablation(frozenset({0})), Ablation(frozenset({0.5, "mean"}))
    assert first.union(second) == Ablation(PROBES)
    assert first.union(Forward()) is None

    class Own(Ablation):
        """Might drive in a way of its own."""

    assert Own().union(first) is first.union(Own()) is None
    assert Own(first.probes).union(Own(second.probes)) == Own(PROBES)
    assert Ablation.site(0) == Ablation.site(0.0)
    assert Ablation.site(1) == Ablation.INTACT
    model, batches = tiny("llama"), [batch()]
    both = {"one": Collect(BLOCKS, frozenset({0})), "two": Collect(BLOCKS, frozenset({0.5, "mean"}))}
    passes: list[Any] = []
    model.model.register_forward_hook(lambda _m, _a, out: passes.append(out.last_hidden_state.shape))
    layerimp.score(model, batches, both)
    assert passes.count((3, 12, 32)) == 2 + 3 * BLOCKS
    apart = collect(model, batches, probes=frozenset({0}))
    assert all(torch.equal(torch.cat(both["one"].found[key]), value) for key, value in apart.items())


def test_a_block_that_is_bad_in_a_batch_is_named() -> None:
    model, clean, bad = tiny("llama"), batch(), batch()
    clean["input_ids"][clean["input_ids"] == 50] = 51
    bad["input_ids"][0, 3] = 50
    model.model.embed_tokens.register_forward_hook(lambda _m, a, out: out.masked_fill(a[0][..., None] == 50, torch.inf))
    with pytest.raises(NonFiniteError, match="block 0 puts out a NaN or an infinity in batch 1"):
        collect(model, [clean, bad])


def test_a_bad_ablation_is_named() -> None:
    """Block 2 takes away what block 1 adds; without it the last block overflows."""
    model = tiny("gpt2", dtype=torch.float16)
    with torch.no_grad():
        for block, bias in ((1, 3e4), (2, -3e4), (3, 5e4)):
            model.transformer.h[block].mlp.c_proj.bias.fill_(bias)
    with pytest.raises(NonFiniteError, match=r"with block 2 changed \(log_prob@0.0\), .* in batch 0"):
        collect(model, [batch()], probes=frozenset({0}))


def test_rows_of_one_token_have_nothing_to_predict() -> None:
    with pytest.raises(CalibrationError, match="nothing to predict"):
        collect(tiny("llama"), [batch(2, 1)])


def gemma4() -> Any:
    """A model whose last two blocks read the keys and values of the first two."""
    config = AutoConfig.for_model(
        "gemma4_text",
        vocab_size=97,
        vocab_size_per_layer_input=97,
        hidden_size=32,
        hidden_size_per_layer_input=8,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        global_head_dim=8,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def test_a_model_whose_blocks_share_keys_is_refused() -> None:
    with pytest.raises(ModelError, match=r"block 3 .* reads more than the residual stream"):
        collect(gemma4(), [batch()])


def test_a_forward_pass_past_a_block_whose_keys_are_shared() -> None:
    stack, batches = layerimp.find_blocks(gemma4()), [batch(), batch(seed=1)]

    def scores(cache: BlockCache | None = None) -> list[float]:
        scorer = BlockInfluence(BLOCKS - 1)
        return measure(stack, batches, {"b": scorer}, removed=[1], cache=cache)["b"].scores

    assert scores(BlockCache(stack)) == scores()


def test_a_block_that_is_always_bad_is_named_in_the_trial() -> None:
    model = tiny("llama")
    model.model.layers[2].mlp.register_forward_hook(lambda _m, _a, out: out * torch.nan)
    with pytest.raises(NonFiniteError, match=r"block 2 puts out a NaN or an infinity in the trial before batch 0"):
        collect(model, [batch()])


def test_a_bad_head_is_named() -> None:
    model = tiny("llama")
    model.lm_head.register_forward_hook(lambda _m, _a, out: out * torch.nan)
    with pytest.raises(NonFiniteError, match="the intact model puts out a NaN or an infinity in batch 0"):
        collect(model, [batch()])


def test_a_stream_of_another_shape_is_refused() -> None:
    config = AutoConfig.for_model(
        "gemma3n_text",
        vocab_size=97,
        vocab_size_per_layer_input=97,
        hidden_size=32,
        hidden_size_per_layer_input=8,
        intermediate_size=[64] * BLOCKS,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        laurel_rank=4,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * BLOCKS,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(ModelError, match=r"block 0 .* reads hidden states \[4, 2, 8, 32\]"):
        collect(model, [batch()])
