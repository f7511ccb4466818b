"""Finds the gaps of a pruned model, and what writes into the residual stream last before each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from layerimp.blocks.equivalence import TOLERANCE, deviation, last_hidden
from layerimp.blocks.forward import hidden_states
from layerimp.blocks.sites import Taps, find_taps
from layerimp.errors import ModelError
from layerimp.healer import Gap, Writer

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack


def find_gaps(pruned: BlockStack, removed: Sequence[int]) -> list[Gap]:
    """The gaps of a pruned model, in depth order.

    Args:
        pruned: The blocks of the pruned model.
        removed: The indices of the removed blocks in the intact model.

    Raises:
        ModelError: nothing was removed.
    """
    gone = sorted(set(removed))
    if not gone:
        raise ModelError("nothing was removed, so that there is nothing to heal")
    count = len(pruned) + len(gone)
    taps = find_taps(pruned)
    found = []
    for first, last in _runs(gone):
        position = first - sum(index < first for index in gone)
        before, after = (first - 1 if first else None), (last + 1 if last + 1 < count else None)
        writer, obstacle = (None, "no block is before it")
        if before is not None:
            writer, obstacle = _writer(pruned, position - 1, taps[position - 1], before)
        found.append(Gap(tuple(range(first, last + 1)), before, after, position, writer, obstacle))
    return found


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each run of neighbours in sorted indices."""
    start = indices[0]
    for one, following in zip(indices, [*indices[1:], -1], strict=True):
        if following != one + 1:
            yield start, one
            start = following


def _writer(stack: BlockStack, position: int, taps: Taps, named: int) -> tuple[Writer | None, str]:
    """What writes last in a block; or None, and why."""
    if "mlp_out" not in taps:
        return None, f"it is not clear where block {named} adds to the residual stream"
    if "mlp_act" not in taps:
        return None, f"no single linear map ends the MLP of block {named}, as where it has experts"
    prefix = f"{stack.path}.{position}."
    path, out = prefix + taps["mlp_act"].path, prefix + taps["mlp_out"].path
    linear, added = stack.model.get_submodule(path), stack.model.get_submodule(out)
    if not isinstance(linear, nn.Linear | Conv1D):
        return None, f"the last map of block {named} is a {type(linear).__name__}, and no plain linear map"
    if linear.weight in _elsewhere(stack, position):
        return None, f"block {named} shares its last linear map with other parts of the model"
    norm = out if path != out and is_norm(added) else None
    joined = norm is None and (end := _ending_norm(stack, position)) is not None
    norm = end if joined else norm
    offset = None if norm is None else offset_of(stack.model.get_submodule(norm))
    if norm is not None and offset is None:
        return None, f"what {norm} puts out does not scale with its weight"
    return Writer(path, norm, taps["mlp_out"].scale, joined, offset or 0.0), ""


def _elsewhere(stack: BlockStack, position: int) -> set[nn.Parameter]:
    """The parameters of the model outside a block."""
    inside = f"{stack.path}.{position}."
    named = stack.model.named_parameters(remove_duplicate=False)
    return {parameter for path, parameter in named if not path.startswith(inside)}


def is_norm(module: nn.Module) -> bool:
    """Whether a module has a weight for each feature, and nothing else but a bias: a norm, as blocks have them."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1 or any(True for _ in module.children()):
        return False
    return all(parameter.ndim == 1 for parameter in module.parameters())


def offset_of(norm: nn.Module) -> float | None:
    """What a norm adds to its weight before it multiplies with it; None where it does neither with 0 nor with 1.

    With the right one, doubling the sum (and the bias) doubles what the norm puts out.
    """
    parameters = {name: value.detach() for name, value in norm.named_parameters()}
    weight = parameters["weight"]
    probe = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device)[None]
    doubled = {name: 2 * value for name, value in parameters.items()}
    with torch.no_grad():
        expected = 2 * norm(probe)
        for offset in (0.0, 1.0):
            found = functional_call(norm, doubled | {"weight": 2 * (weight + offset) - offset}, (probe,))
            if deviation(expected, found) <= TOLERANCE:
                return offset
    return None


def _ending_norm(stack: BlockStack, position: int) -> str | None:
    """The norm whose output is the block's own (post-norm), by its path; None where the block ends in a sum."""
    outputs: dict[str, torch.Tensor] = {}
    with ExitStack() as hooks:
        for path, module in stack[position].named_modules():
            if not path or is_norm(module):

                def take(_module: nn.Module, _args: object, output: object, path: str = path) -> None:
                    outputs[path] = hidden_states(output)

                hooks.callback(module.register_forward_hook(take).remove)
        last_hidden(stack)
    end = outputs.pop("")
    same = (path for path, output in outputs.items() if output.shape == end.shape and torch.equal(output, end))
    return next((f"{stack.path}.{position}.{path}" for path in same), None)
