"""The sites inside the blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny import ALL, EAGER_ONLY, EXPERTS, POST_NORM, each_of, tiny
from torch import nn

import layerimp
from layerimp.blocks.forward import hidden_states
from layerimp.blocks.sites import find_taps
from layerimp.sweep import Drive, Forward, Trace
from layerimp.testing import BLOCKS, batch, padded_batch

KINDS = [(name, "eager") for name in ALL] + [(name, "sdpa") for name in ALL if name not in EAGER_ONLY]


def traces(model: Any, sites: set[str], inputs: dict[str, torch.Tensor], *bundles: set[str]) -> list[Trace]:
    """The traces of one batch, with copies of the borrowed tensors."""
    kept: list[Trace] = []

    def keep(trace: Trace) -> None:
        acts = {site: act.clone() for site, act in trace.acts.items()}
        kept.append(Trace(trace.block, trace.batch, acts, trace.mask, trace.padded))

    stack, sweep = layerimp.find_blocks(model), Forward()
    scouting = sweep.scout(stack, frozenset(sites))
    takers = dict.fromkeys(map(frozenset, bundles or [sites]), keep)
    sweep.drive(stack, [inputs], Drive(scouting, range(len(stack)), takers, lambda: None))
    return kept


@pytest.mark.parametrize(("name", "attention"), KINDS)
def test_branches_add_up(name: str, attention: str) -> None:
    model = tiny(name, attention=attention)
    stack = layerimp.find_blocks(model)
    assert len(stack) == len(list(stack)) == BLOCKS
    assert model.get_submodule(stack.path)[2] is stack[2]
    for trace in traces(model, {"block_in", "block_out", "attn_out", "mlp_out"}, batch()):
        acts = trace.acts
        assert all(act.shape == (3, 12, 32) for act in acts.values())
        if name in POST_NORM:
            continue
        torch.testing.assert_close(
            acts["attn_out"] + acts["mlp_out"], acts["block_out"] - acts["block_in"], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("name", each_of(ALL))
def test_only_attention_reads_other_tokens(name: str) -> None:
    """Changing one token's input to a block changes other tokens' attention output."""
    model = tiny(name)
    stack = layerimp.find_blocks(model)
    tap = find_taps(stack)[0]["attn_out"]
    seen: list[torch.Tensor] = []
    module = stack[0].get_submodule(tap.path)
    module.register_forward_hook(lambda _m, _a, output: seen.append(hidden_states(output).reshape(3, 12, -1).clone()))
    inputs = batch()
    with torch.no_grad():
        stack.backbone(**inputs, use_cache=False)
        inputs["input_ids"][:, 0] = (inputs["input_ids"][:, 0] + 1) % 90 + 1
        stack.backbone(**inputs, use_cache=False)
    assert (seen[0][:, -1] - seen[1][:, -1]).abs().max() > 0


@pytest.mark.parametrize("name", each_of([name for name in ALL if name not in EXPERTS]))
def test_neurons_make_the_mlp_output(name: str) -> None:
    """`mlp_act` through the last linear map, and any norm after it, is `mlp_out`."""
    model = tiny(name)
    stack = layerimp.find_blocks(model)
    taps = find_taps(stack)
    for trace, block, tap in zip(traces(model, {"mlp_act", "mlp_out"}, batch()), stack, taps, strict=True):
        down = block.get_submodule(tap["mlp_act"].path)
        width = next(size for size in down.weight.shape if size != 32)
        assert trace.acts["mlp_act"].shape == (3, 12, width)
        with torch.no_grad():
            made = down(trace.acts["mlp_act"])
            if isinstance(after := block.get_submodule(tap["mlp_out"].path), nn.Module) and after is not down:
                made = after(made)
        torch.testing.assert_close(made * tap["mlp_out"].scale, trace.acts["mlp_out"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", each_of(ALL))
def test_a_linear_map_ends_the_attention(name: str) -> None:
    """The output of the attention's last linear map, after any norm, is `attn_out`."""
    model = tiny(name)
    stack = layerimp.find_blocks(model)
    outputs: dict[int, torch.Tensor] = {}
    for index, (block, tap) in enumerate(zip(stack, find_taps(stack), strict=True)):
        out, after = block.get_submodule(tap["attn_act"].path), block.get_submodule(tap["attn_out"].path)
        after = after if after is not out and _is_norm(after) else nn.Identity()

        def take(_m: Any, _a: Any, made: Any, index: int = index, after: Any = after, tap: Any = tap) -> None:
            with torch.no_grad():
                outputs[index] = tap["attn_out"].scale * after(made)

        out.register_forward_hook(take)
    for trace in traces(model, {"attn_out"}, batch()):
        made = outputs[trace.block].reshape(3, 12, -1)
        torch.testing.assert_close(made, trace.acts["attn_out"], rtol=1e-4, atol=1e-4)


def _is_norm(module: nn.Module) -> bool:
    return all(parameter.ndim == 1 for parameter in module.parameters()) and not list(module.children())


@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_experts_have_no_neurons(name: str) -> None:
    model = tiny(name)
    assert all("mlp_act" not in taps for taps in find_taps(layerimp.find_blocks(model)))
    avss = layerimp.score(model, [batch()], ["avss"])["avss"]
    assert "mlp_out is read instead" in avss.notes[0]


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_neox", "olmo2", "falcon", "qwen3_moe", "granite"])
def test_half_precision_finds_the_same(name: str) -> None:
    wide, narrow = (find_taps(layerimp.find_blocks(tiny(name, dtype=d))) for d in (torch.float32, torch.bfloat16))
    assert [{s: t.path for s, t in taps.items()} for taps in wide] == [
        {s: t.path for s, t in taps.items()} for taps in narrow
    ]


@pytest.mark.parametrize("zeroed", [("self_attn.o_proj", "mlp.down_proj"), ("self_attn.o_proj",), ("mlp.down_proj",)])
def test_a_silent_block_borrows_its_sites(zeroed: tuple[str, ...]) -> None:
    model = tiny("llama")
    stack = layerimp.find_blocks(model)
    expected = find_taps(stack)
    for path in zeroed:
        nn.init.zeros_(stack[1].get_submodule(path).weight)
    assert find_taps(stack) == expected


def test_a_search_for_sites_runs_no_block_but_in_the_probe() -> None:
    model = tiny("gemma3_text")  # two kinds of attention
    stack = layerimp.find_blocks(model)
    runs: list[int] = []
    for index, block in enumerate(stack):
        block.mlp.register_forward_hook(lambda *_, index=index: runs.append(index))
    taps = find_taps(stack)
    kinds = [block.self_attn.is_sliding for block in stack]
    assert all(site in each for each in taps for site in ("attn_out", "mlp_out", "mlp_act"))
    assert sorted(runs) == sorted({kinds.index(kind) for kind in kinds})
    assert not any("forward" in vars(block) for block in stack)


def test_a_search_for_sites_runs_blocks_that_others_need() -> None:
    """The last block has a structure of its own, and fails unless the block before it has run."""
    model = tiny("llama")
    stack = layerimp.find_blocks(model)
    expected = find_taps(stack)
    ran: list[int] = []

    def need(*_: Any) -> None:
        if not ran:
            raise RuntimeError("nothing was left by block 2")

    stack[2].mlp.register_forward_hook(lambda *_: ran.append(1))
    stack[3].register_forward_pre_hook(need)
    stack[3].of_its_own = True
    assert find_taps(stack) == expected
    assert ran


def test_sites_that_are_read_together_come_as_soon_as_they_are_whole() -> None:
    model, ends = tiny("llama"), {"block_in", "block_out"}
    sites = {"attn_out", "mlp_act", *ends}
    whole = traces(model, sites, padded_batch())
    bundled = traces(model, sites, padded_batch(), ends, {"mlp_act", "block_in"}, {"attn_out", "mlp_act"})
    assert [trace.block for trace in bundled] == [block for block in range(BLOCKS) for _ in range(3)]
    for trace in bundled:
        assert trace.padded
        for site, act in trace.acts.items():
            assert torch.equal(act, whole[trace.block].acts[site])
    for first in range(0, len(bundled), 3):
        inner, last = bundled[first : first + 2], bundled[first + 2]
        assert {frozenset(trace.acts) for trace in inner} == {
            frozenset({"mlp_act", "block_in"}),
            frozenset({"attn_out", "mlp_act"}),
        }
        assert last.acts.keys() == ends


def test_sites_see_padding_as_such() -> None:
    inputs = padded_batch((12, 5, 9))
    for trace in traces(tiny("opt"), {"mlp_act"}, inputs):
        assert trace.padded
        assert trace.rows("mlp_act").shape == (26, 64)
