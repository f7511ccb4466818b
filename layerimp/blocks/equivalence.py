"""Whether two models are the same: weight by weight, and in what they put out for a few tokens.

What a product of matrices rounds to can depend on where its operands lie in memory. So two models are first compared
weight by weight, bit for bit, and then compute with the very same tensors: equal models agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import hidden_states, without_cache
from layerimp.blocks.modes import in_eval_mode, quiet
from layerimp.blocks.stack import BlockStack, probe_ids
from layerimp.errors import NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from layerimp.steps import Step

TOKENS = 12
PROMPT = 8
"""Tokens that a cache is filled with at once; the others come one by one."""
TOLERANCE = 8.0
"""How many roundings two ways of computing the same with the same tensors may lie apart; most lie 0."""


def last_hidden(stack: BlockStack, skipped: Sequence[Step] = ()) -> Tensor:
    """The last hidden states [1, seq, hidden], past the steps `skipped`; of an encoder and a decoder, the logits."""
    # The backbone of an encoder and a decoder may want the ids of both; the model makes those of the decoder itself.
    with in_eval_mode(stack.model), bypassed(stack, skipped):
        return _answer(stack, stack.model if stack.model.config.is_encoder_decoder else stack.backbone)


def logits(stack: BlockStack) -> Tensor:
    """The logits [1, seq, vocab], or of a classifier [1, label], without a cache."""
    return _answer(stack, stack.model)


def _answer(stack: BlockStack, part: nn.Module) -> Tensor:
    """The first tensor that a part of the model puts out."""
    ids = probe_ids(stack, TOKENS)
    with in_eval_mode(stack.model), torch.no_grad(), quiet():
        return hidden_states(part(input_ids=ids, attention_mask=torch.ones_like(ids), **without_cache(part)))


def cached_logits(stack: BlockStack, skipped: Sequence[Step] = ()) -> Tensor | None:
    """The logits [1, token, vocab] of the last tokens, as generation computes them with a cache, past steps `skipped`.

    The tokens are given, whatever the model would say. None for a model that generates nothing.
    """
    model = stack.model
    if not model.can_generate():
        return None
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


def require_finite(values: Tensor, whose: str) -> None:
    """Refuse to compare with what is not finite.

    Raises:
        NonFiniteError: a value is a NaN or an infinity; says `whose`.
    """
    if not values.isfinite().all():
        raise NonFiniteError(f"{whose} puts out a NaN or an infinity on a few tokens")


def deviation(expected: Tensor, found: Tensor | None, dtype: torch.dtype | None = None) -> float:
    """The largest difference, in roundings at the scale of the largest value; infinite where there is a NaN.

    Args:
        expected: What should come out.
        found: What came out; None where nothing did.
        dtype: What was computed in; by default the dtype of `expected`, which generation widens to float32.
    """
    if found is None or expected.shape != found.shape:
        return math.inf
    scale = float(expected.abs().max()) * torch.finfo(dtype or expected.dtype).eps
    off = float((expected.double() - found.double()).abs().max())
    return off / max(scale, 1e-300) if math.isfinite(off) else math.inf


def first_difference(model: PreTrainedModel, other: PreTrainedModel) -> str | None:
    """The first weight or persistent buffer that differs in any bit, by its path; None where all are equal.

    A weight that the other model holds in a narrower dtype is compared as that dtype rounds it.
    """
    ours, theirs = stored_tensors(model), stored_tensors(other)
    for path, tensor in ours.items():
        found = theirs.get(path)
        if found is None or found.shape != tensor.shape or not torch.equal(_bits(tensor.to(found.dtype)), _bits(found)):
            return path
    return next((path for path in theirs if path not in ours), None)


def share_tensors(owner: PreTrainedModel, borrower: PreTrainedModel) -> None:
    """Let a model compute with another one's weights and persistent buffers, in place of equal ones of its own."""
    theirs = stored_tensors(owner)
    for path, tensor in stored_tensors(borrower).items():
        tensor.data = theirs[path].data


def stored_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights and the buffers that a checkpoint holds, by their path; tied ones under each of their paths."""
    return dict(model.state_dict(keep_vars=True))


def _bits(tensor: Tensor) -> Tensor:
    """A tensor's bits as whole numbers, so that -0 is not 0, and a NaN is itself."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().view(whole[tensor.itemsize]) if tensor.itemsize in whole else tensor.detach()
