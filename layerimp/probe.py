"""What a model puts out for a few tokens, in three ways, and how far two answers lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks import BlockStack, bypassed, find_blocks, hidden_states, probe_ids, without_cache
from layerimp.model import in_eval_mode, quiet

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TOKENS = 12
PROMPT = 8
"""Tokens that a cache is filled with at once; the others come one by one."""
TOLERANCE = 8.0
"""How many roundings two ways of computing the same may lie apart; most lie 0."""
CACHE_TOLERANCE = {torch.float32: 256.0, torch.float64: 256.0}
"""The same for a cache, by dtype; elsewhere 32. Other shapes sum in another order, through all blocks; where a rounding
is small, many of them are still far less than an error."""


def last_hidden(stack: BlockStack, skipped: Sequence[int] = (), *, tokens: int = TOKENS) -> Tensor:
    """The last hidden states [1, seq, hidden], past the blocks `skipped`; of an encoder and a decoder, the logits."""
    ids = probe_ids(stack, tokens)
    # The backbone of an encoder and a decoder may want the ids of both; the model makes those of the decoder itself.
    run = stack.model if stack.model.config.is_encoder_decoder else stack.backbone
    with in_eval_mode(stack.model), torch.no_grad(), quiet(), bypassed(stack, skipped):
        output = run(input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(run))
    return hidden_states(values(output))


def logits(model: PreTrainedModel) -> Tensor:
    """The logits [1, seq, vocab], or of a classifier [1, label], without a cache."""
    ids = probe_ids(find_blocks(model), TOKENS)
    with in_eval_mode(model), torch.no_grad(), quiet():
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(model))
    return hidden_states(values(output))


def cached_logits(model: PreTrainedModel, skipped: Sequence[int] = ()) -> Tensor | None:
    """The logits [1, step, vocab] of the last tokens, as generation computes them with a cache, past blocks `skipped`.

    The tokens are given, whatever the model would say. None for a model that generates nothing.
    """
    if not model.can_generate():
        return None
    stack = find_blocks(model)
    ids = probe_ids(stack, TOKENS)
    following = ids[0].tolist()
    generate: Any = model.generate
    with in_eval_mode(model), torch.no_grad(), quiet(), bypassed(stack, skipped):
        output = generate(
            ids[:, :PROMPT],
            attention_mask=torch.ones_like(ids[:, :PROMPT]),
            max_new_tokens=TOKENS - PROMPT,
            min_new_tokens=0,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            prefix_allowed_tokens_fn=lambda _row, seen: [following[len(seen)]],
            return_dict_in_generate=True,
            output_logits=True,
        )
    return torch.stack(output.logits, dim=1)


def values(output: Any) -> tuple[Any, ...]:
    """What a model puts out, in order; some give a tuple themselves (`return_dict=False`)."""
    return output if isinstance(output, tuple) else tuple(output.to_tuple())


def cache_deviation(expected: Tensor, cached: Tensor) -> float:
    """`deviation` of cached logits [1, step, vocab], as a share of what is allowed: above 1 is an error.

    Args:
        expected: Others of the same steps, or logits [1, seq, vocab] of all tokens.
        cached: The cached ones.
    """
    if expected.shape[1] == TOKENS:
        expected = expected[:, PROMPT - 1 : PROMPT - 1 + cached.shape[1]]
    return deviation(expected, cached) / CACHE_TOLERANCE.get(cached.dtype, 32.0)


def deviation(expected: Tensor, found: Tensor) -> float:
    """The largest difference, in roundings of the dtype at the scale of the largest value; infinite where NaN."""
    if expected.shape != found.shape:
        return math.inf
    scale = float(expected.abs().max()) * torch.finfo(expected.dtype).eps
    off = float((expected.double() - found.double()).abs().max())
    return off / max(scale, 1e-300) if math.isfinite(off) else math.inf
