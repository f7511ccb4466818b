"""Gaps: where something was removed, and the last module that writes into the stream before it."""

from __future__ import annotations

import pytest
import torch
from support.healing_cases import case_of
from support.tiny import ALL, EXPERTS, POST_NORM, each_of, tiny

from layerimp.healing import replace, states, trying


def test_gaps_are_the_runs_of_removed_blocks() -> None:
    gaps = case_of(tiny("llama", num_hidden_layers=8), [6, 0, 2, 3, 7]).gaps
    assert [(gap.removed, gap.before, gap.after, gap.position) for gap in gaps] == [
        ((0,), None, 1, 0),
        ((2, 3), 1, 4, 1),
        ((6, 7), 5, None, 3),
    ]
    assert [str(gap) for gap in gaps] == ["block 0", "blocks 2-3", "blocks 6-7"]
    assert (gaps[0].writer, gaps[0].obstacle) == (None, "nothing is before it")
    assert [gap.writer.path for gap in gaps[1:] if gap.writer] == [
        "model.layers.0.mlp.down_proj",
        "model.layers.2.mlp.down_proj",
    ]


@pytest.mark.parametrize("name", each_of(ALL))
def test_the_writer_is_what_the_stream_follows(name: str) -> None:
    """A change of the writer's map, or of the norm after it, is the only thing that changes the stream at the gap."""
    case = case_of(tiny(name), [1])
    (gap,) = case.gaps
    assert (gap.writer is None) == (name in EXPERTS)
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
