"""A run from the first changed block on has the same output as a complete run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import torch
from support.tiny import ALL, classifier, each_of, tiny

from layerimp.blocks.forward import run
from layerimp.blocks.modes import in_eval_mode
from layerimp.blocks.stack import Batch, BlockStack
from layerimp.errors import LayerimpError
from layerimp.healing import replace, trying
from layerimp.healing.reruns import Reruns
from layerimp.models.discovery import find_blocks
from layerimp.testing import batch, padded_batch

TEXT: list[Batch] = [batch(2, 9, seed=1), padded_batch((7, 4, 9))]


def outputs(stack: BlockStack, reruns: Reruns | None = None, text: Sequence[Batch] = TEXT) -> list[torch.Tensor]:
    """The output of the backbone for each batch."""
    hidden = []
    with torch.no_grad(), in_eval_mode(stack.model):
        for inputs in text:
            with ExitStack() as around:
                if reruns is not None:
                    around.enter_context(reruns.of(inputs))
                hidden.append(run(stack.backbone, inputs)[0])
    return hidden


@contextmanager
def counting(stack: BlockStack) -> Iterator[list[int]]:
    """The blocks whose attention is computed, in order; watched without a hook, which would count as a change."""
    attention, computed = type(stack[0].self_attn), []
    index_of = {id(block.self_attn): index for index, block in enumerate(stack)}
    own = attention.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        computed.append(index_of[id(self)])
        return own(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(attention, "forward", forward)
        yield computed


def louder(stack: BlockStack, index: int) -> None:
    """Replace a parameter of a block."""
    path = f"{stack.path}.{index}"
    name, value = next((name, value) for name, value in stack[index].named_parameters() if value.ndim == 2)
    replace(stack.model, f"{path}.{name}", 1.5 * value)


@pytest.mark.same_bits("the outputs of a run from a changed block on, and of a whole run")
@pytest.mark.parametrize("name", each_of(ALL))
def test_what_comes_out_is_that_of_a_whole_run(name: str) -> None:
    """Bit for bit, after values were tried, kept, and written into, and with hooks that come and go."""
    stack = find_blocks(tiny(name))
    reruns = Reruns(stack, TEXT)

    def check() -> list[torch.Tensor]:
        expected = outputs(stack)
        for _ in range(2):
            assert all(map(torch.equal, outputs(stack, reruns), expected))
        return expected

    first = check()
    with trying(stack.model):
        louder(stack, 2)
        assert not torch.equal(check()[0], first[0])
    assert torch.equal(check()[0], first[0])
    louder(stack, 1)
    second = check()
    with torch.no_grad():
        next(value for value in stack[1].parameters() if value.ndim == 2).mul_(0.5)
    third = check()
    assert not torch.equal(third[0], second[0])
    hook = stack[3].register_forward_pre_hook(lambda _module, args: (2 * args[0], *args[1:]) if args else None)
    check()
    hook.remove()
    assert torch.equal(check()[0], third[0])
    with torch.no_grad():
        stack.model.get_input_embeddings().weight.mul_(0.5)
    assert not torch.equal(check()[0], third[0])


def test_training_is_seen() -> None:
    """An optimizer writes into parameters in place: after each step the blocks are computed again."""
    stack = find_blocks(tiny("llama"))
    reruns = Reruns(stack, TEXT)
    optimizer = torch.optim.AdamW(stack[2].parameters(), lr=1e-2)
    before = outputs(stack, reruns)
    for _ in range(2):
        optimizer.zero_grad()
        stack.model(**TEXT[0]).logits.square().mean().backward()
        optimizer.step()
        now = outputs(stack, reruns)
        assert not torch.equal(now[0], before[0])
        assert all(map(torch.equal, now, outputs(stack)))
        before = now


def test_what_has_not_changed_is_not_computed() -> None:
    stack = find_blocks(tiny("llama"))
    reruns = Reruns(stack, TEXT[:1])
    with counting(stack) as computed:
        outputs(stack, reruns, TEXT[:1])
        assert computed == [0, 1, 2, 3]
        outputs(stack, reruns, TEXT[:1])
        assert computed == [0, 1, 2, 3]
        louder(stack, 2)
        outputs(stack, reruns, TEXT[:1])
        assert computed == [0, 1, 2, 3, 2, 3]
        outputs(stack, reruns, TEXT[1:])
        assert computed[6:] == [0, 1, 2, 3], "other text is run as a whole"
        outputs(stack, reruns, [dict(TEXT[0])])
        assert computed[10:] == [0, 1, 2, 3], "a copy of a batch is another batch"


class EndedError(LayerimpError):
    """Ends a run early."""


@pytest.mark.same_bits("the outputs of a run from a changed block on, and of a whole run")
@pytest.mark.parametrize("name", each_of(ALL))
def test_after_a_run_that_ended_early_two_outputs_are_stored(name: str) -> None:
    """They are enough to go on; after a change before them, all blocks run again."""
    stack = find_blocks(tiny(name))
    text = TEXT[:1]
    reruns = Reruns(stack, text)

    def end_at(index: int) -> None:
        def end(*_call: Any) -> None:
            raise EndedError

        with stack[index].register_forward_pre_hook(end), suppress(EndedError):
            outputs(stack, reruns, text)

    end_at(3)
    if reruns._cache.apart:
        assert [sorted(known) for known in reruns._cache._known.values()] == [[1, 2]]
    for index in (2, 1):
        louder(stack, index)
        assert all(map(torch.equal, outputs(stack, reruns, text), outputs(stack, text=text)))
        end_at(3)
    louder(stack, 0)
    assert all(map(torch.equal, outputs(stack, reruns, text), outputs(stack, text=text)))


@pytest.mark.same_bits("the outputs of a run from a changed block on, and of a whole run")
def test_an_encoder_runs_again_as_well() -> None:
    stack = find_blocks(classifier("bert"))
    reruns = Reruns(stack, TEXT)
    for index in (3, 1, 2):
        outputs(stack, reruns)
        louder(stack, index)
        assert all(map(torch.equal, outputs(stack, reruns), outputs(stack)))
