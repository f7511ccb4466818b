"""Gaps: where something was removed, and the last module that writes into the stream before it."""

from __future__ import annotations

import pytest
import torch
from support.healing_cases import GONE, case_of, sublayers
from support.tiny import ALL, EXPERTS, PARALLEL, POST_NORM, each_of, tiny

import layerimp
from layerimp.healing import replace, states, trying
from layerimp.models.discovery import find_blocks
from layerimp.steps import Step
from layerimp.surgery.removal import prepare
from layerimp.testing import batch


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
    assert removal.steps == [1, 2]
    healing = layerimp.heal(model, ["1/2", "1.attn,2.mlp"], [batch(8, 12, seed=3)], "rescale")
    assert [str(repair.gap) for repair in healing.repairs] == ["blocks 1-2"]


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("name", each_of(ALL))
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
