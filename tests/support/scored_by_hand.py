"""Blocks of four architectures written out by hand, in two halves, to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import layerimp

Change = Callable[[Tensor], Tensor]


def _llama(block: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return x + block.self_attn(*args, hidden_states=block.input_layernorm(x), **kwargs)[0]


def _gemma(block: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    added = block.self_attn(*args, hidden_states=block.input_layernorm(x), **kwargs)[0]
    return x + block.post_attention_layernorm(added)


def _gpt2(block: Any, x: Tensor, cache: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    mask = {"attention_mask": args[0]} if args else {}
    kwargs.pop("encoder_hidden_states", None)
    kwargs.pop("encoder_attention_mask", None)
    return x + block.attn(block.ln_1(x), **mask, **kwargs)[0]


def _bert(block: Any, x: Tensor, mask: Any = None, *_args: Any, **kwargs: Any) -> Tensor:
    mask = kwargs.get("attention_mask", mask)
    attention = block.attention
    return attention.output.LayerNorm(attention.output.dense(attention.self(x, mask)[0]) + x)


ATTENTION: dict[str, Callable[..., Tensor]] = {"llama": _llama, "gemma3_text": _gemma, "gpt2": _gpt2, "bert": _bert}
MLP: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "llama": lambda block, x: x + block.mlp(block.post_attention_layernorm(x)),
    "gemma3_text": lambda block, x: x + block.post_feedforward_layernorm(block.mlp(block.pre_feedforward_layernorm(x))),
    "gpt2": lambda block, x: x + block.mlp(block.ln_2(x)),
    "bert": lambda block, x: block.output.LayerNorm(block.output.dense(block.intermediate(x)) + x),
}
ARCHITECTURES = list(MLP)
SILENT = {
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gemma3_text": ("self_attn.o_proj", "mlp.down_proj"),
}
"""The projections through which attention and MLP add to the stream, where they may add nothing."""


@dataclass
class Stream:
    """The residual stream before each sublayer of a model, and at its end.

    Attributes:
        at: The states [batch, seq, hidden] before the sublayers 0.attn, 0.mlp, 1.attn and so on.
        changes: What to make of a state before it goes on, by its place.
    """

    at: dict[int, Tensor] = field(default_factory=dict)
    changes: dict[int, Change] = field(default_factory=dict)

    def passes(self, place: int, state: Tensor) -> Tensor:
        self.at[place] = self.changes.get(place, lambda same: same)(state)
        return self.at[place]


@contextmanager
def written_out(model: Any, architecture: str) -> Iterator[Stream]:
    """The model, with its blocks computed by the functions above."""
    stream, blocks = Stream(), list(layerimp.find_blocks(model))
    own = [block.forward for block in blocks]
    for index, block in enumerate(blocks):

        def forward(x: Tensor, *args: Any, block: Any = block, index: int = index, **kwargs: Any) -> Tensor:
            kwargs.pop("past_key_values", None)
            x = stream.passes(2 * index, x) if index == 0 else x
            middle = stream.passes(2 * index + 1, ATTENTION[architecture](block, x, *args, **kwargs))
            return stream.passes(2 * index + 2, MLP[architecture](block, middle))

        block.forward = forward
    try:
        yield stream
    finally:
        for block, forward in zip(blocks, own, strict=True):
            block.forward = forward
            del vars(block)["forward"]


def states(model: Any, architecture: str, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The residual stream [batch, seq, hidden] before each sublayer, and at the end."""
    with written_out(model, architecture) as stream, torch.no_grad():
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    return [stream.at[place] for place in sorted(stream.at)]
