"""Compares two models: weight by weight, and by their outputs for a few tokens.

The rounding of a matrix product can depend on where its operands lie in memory. So two models are first compared weight
by weight, bit for bit, and then compute with the very same tensors: equal models agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.bypass import bypassed
from layerimp.blocks.forward import hidden_states, without_cache
from layerimp.blocks.input_forms import vision_part
from layerimp.blocks.modalities import IMAGE, MODALITIES, Modality, made_up
from layerimp.blocks.modes import in_eval_mode, quiet
from layerimp.blocks.stack import BlockStack, on_demand, probe_ids, whole_or_backbone
from layerimp.errors import ModelError, NonFiniteError, one_line

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

TOKENS = 12
PROMPT = 8
"""The number of tokens with which a cache is filled at once; the other tokens follow one by one."""
TOLERANCE = 8.0
"""The largest difference, in roundings, between two ways to compute the same from the same tensors; usually it is 0."""

UNSEEN = "reads images in a form that layerimp cannot make up, so that no removal can be verified"
"""Why nothing is removed from a model for which no image can be made up."""
_BY_TOKEN = frozenset({"input_ids", "attention_mask", "cross_attention_mask", "mm_token_type_ids", "token_type_ids"})
"""The arguments of a forward that hold a value for each token."""


@dataclass(frozen=True)
class Probe:
    """A row of inputs on which models are compared.

    Attributes:
        inputs: The arguments of the forward, `input_ids` [1, seq] among them.
        prompt: The number of tokens with which a cache is filled at once; the other tokens follow one by one.
        modality: What stands in the row beside text; None for text alone.
    """

    inputs: Mapping[str, Tensor]
    prompt: int
    modality: Modality | None = None

    @property
    def named(self) -> str:
        """What stands in the row beside text, for errors, such as ` with an image`; else empty."""
        return f" with {self.modality.phrase}" if self.modality else ""

    def whole(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the inputs, with pixels in the dtype that the model computes in."""
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in self.inputs.items()}

    def begin(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the inputs without the tokens that follow the prompt."""
        inputs = self.whole(dtype)
        return inputs | {name: inputs[name][:, : self.prompt] for name in _BY_TOKEN & inputs.keys()}


def text_probe(stack: BlockStack) -> Probe:
    """Return the probe that is a few tokens of text."""
    ids = probe_ids(stack, TOKENS)
    return Probe({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, PROMPT)


def probes(stack: BlockStack) -> list[Probe]:
    """Return the probes of a model: text alone, and text with each modality that it takes and that can be made up.

    Raises:
        ModelError: the model sees, and no image can be made up for it, or it does not run on text alone.
    """
    rows = [(modality, made_up(stack, modality)) for modality in MODALITIES if modality.taken_by(stack.model)]
    beside = [
        Probe(inputs, inputs["input_ids"].shape[1] - (TOKENS - PROMPT), modality) for modality, inputs in rows if inputs
    ]
    # Without a part that sees, only other models of the class take images, if any.
    if vision_part(stack.model.config) is not None and IMAGE not in (probe.modality for probe in beside):
        kind = type(stack.model).__name__
        try:
            last_hidden(stack)
        except Exception as error:  # a model may fail in any way
            raise ModelError(f"{kind} cannot run on a few tokens: {one_line(error)}") from error
        raise ModelError(f"{kind} {UNSEEN}")
    return [text_probe(stack), *beside]


def last_hidden(stack: BlockStack, skipped: Collection[int] = (), probe: Probe | None = None) -> Tensor:
    """Return the last hidden states [1, seq, hidden] with blocks bypassed; for an encoder-decoder model, the logits."""
    with in_eval_mode(stack.model), on_demand(stack), bypassed(stack, skipped):
        return _answer(stack, whole_or_backbone(stack), probe)


def logits(stack: BlockStack, probe: Probe | None = None) -> Tensor:
    """Return the logits [1, seq, vocab], or [1, label] for a classifier, without a cache."""
    with in_eval_mode(stack.model):
        return _answer(stack, stack.model, probe)


def _answer(stack: BlockStack, part: nn.Module, probe: Probe | None) -> Tensor:
    """Return the first tensor in the output of a part of a model."""
    inputs = (probe or text_probe(stack)).whole(stack.model.dtype)
    with torch.no_grad(), quiet():
        return hidden_states(part(**inputs, **without_cache(part)))


def cached_logits(stack: BlockStack, skipped: Collection[int] = (), probe: Probe | None = None) -> Tensor | None:
    """Return the logits [1, token, vocab] of the last tokens, computed with a cache and with blocks bypassed.

    The tokens are fixed, whatever the model would generate. None for a model that does not generate.
    """
    model, probe = stack.model, probe or text_probe(stack)
    if not model.can_generate():
        return None
    following = probe.inputs["input_ids"][0].tolist()
    generate: Any = model.generate
    with in_eval_mode(model), torch.no_grad(), quiet(), bypassed(stack, skipped):
        output = generate(
            **probe.begin(model.dtype),
            max_new_tokens=len(following) - probe.prompt,
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
    """Refuse values that are not finite, and so cannot be compared.

    Args:
        values: The values.
        whose: The model, for the error.

    Raises:
        NonFiniteError: a value is a NaN or an infinity.
    """
    if not values.isfinite().all():
        raise NonFiniteError(f"{whose} puts out a NaN or an infinity on a few tokens")


def deviation(expected: Tensor, actual: Tensor | None, dtype: torch.dtype | None = None) -> float:
    """Return the largest difference, in roundings at the scale of the largest value; infinite if there is a NaN.

    Args:
        expected: The expected values.
        actual: The values to compare; None if there are none.
        dtype: The dtype of the computation; by default that of `expected`. Generation widens logits to float32.
    """
    if actual is None or expected.shape != actual.shape:
        return math.inf
    scale = float(expected.abs().max()) * torch.finfo(dtype or expected.dtype).eps
    off = float((expected.double() - actual.double()).abs().max())
    return off / max(scale, 1e-300) if math.isfinite(off) else math.inf


def first_difference(model: PreTrainedModel, other: PreTrainedModel) -> str | None:
    """Return the path of the first weight or persistent buffer that differs in any bit; None if all are equal.

    A weight that the other model holds in a narrower dtype is compared after rounding to that dtype.
    """
    ours, theirs = stored_tensors(model), stored_tensors(other)
    for path, tensor in ours.items():
        their = theirs.get(path)
        if their is None or not same_bits(tensor.to(their.dtype), their):
            return path
    return next((path for path in theirs if path not in ours), None)


def share_tensors(owner: PreTrainedModel, borrower: PreTrainedModel) -> None:
    """Let a model use the weights and persistent buffers of another model in place of its own, which are equal."""
    theirs = stored_tensors(owner)
    for path, tensor in stored_tensors(borrower).items():
        tensor.data = theirs[path].data


def stored_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights and buffers that a checkpoint holds, by path; a tied weight under each of its paths."""
    return dict(model.state_dict(keep_vars=True))


def same_bits(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal in dtype, shape and every bit."""
    return tensor.dtype == other.dtype and torch.equal(_bits(tensor), _bits(other))


def _bits(tensor: Tensor) -> Tensor:
    """Return a tensor's bits as integers, so that -0 differs from 0, and a NaN equals itself."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.detach().view(whole[tensor.itemsize]) if tensor.itemsize in whole else tensor.detach()
