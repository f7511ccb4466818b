"""Finds the gaps of a pruned model, and for each gap the last linear map that writes into the stream before it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from layerimp.blocks.equivalence import TOLERANCE, deviation, last_hidden
from layerimp.blocks.forward import hidden_states
from layerimp.blocks.sites import find_taps
from layerimp.errors import ModelError
from layerimp.healer import Gap, Writer
from layerimp.indices import runs_of

if TYPE_CHECKING:
    from layerimp.blocks.stack import BlockStack


def find_gaps(pruned: BlockStack, removed: Collection[int]) -> list[Gap]:
    """Find the gaps of a pruned model, in depth order.

    Args:
        pruned: The blocks of the pruned model.
        removed: The removed blocks, by the indices of the intact model.

    Raises:
        ModelError: nothing was removed.
    """
    if not removed:
        raise ModelError("nothing was removed, so that there is nothing to heal")
    gaps, num_removed, num_blocks = [], 0, len(pruned) + len(removed)
    writers = Writers(pruned)
    for run in runs_of(removed):
        gaps.append(_gap(run, num_blocks, writers, shift=num_removed))
        num_removed += len(run)
    return gaps


class Writers:
    """The last linear maps that write into the residual stream after the blocks of a model.

    Args:
        stack: The blocks of the model: an intact or a pruned one.
    """

    def __init__(self, stack: BlockStack) -> None:
        self.stack = stack
        self._taps = find_taps(stack)
        self._ending_norm = cache(partial(_ending_norm, stack))  # the model runs once for each block

    def after(self, last: int, known_as: int) -> tuple[Writer | None, str]:
        """Return the writer of a block, which is in its MLP, or None and the reason why there is none.

        Args:
            last: The block, by the indices of this model.
            known_as: The same block, by the indices of the intact model, for messages.
        """
        stack, taps = self.stack, self._taps[last]
        of = f"the MLP of block {known_as}"
        if "mlp_out" not in taps:
            return None, f"it is not clear where {of} adds to the residual stream"
        if "mlp_act" not in taps:
            return None, f"no single linear map ends {of}, as where it has experts"
        prefix = f"{stack.path}.{last}."
        path, out = prefix + taps["mlp_act"].path, prefix + taps["mlp_out"].path
        linear, added = stack.model.get_submodule(path), stack.model.get_submodule(out)
        if not isinstance(linear, nn.Linear | Conv1D):
            return None, f"the last map of {of} is a {type(linear).__name__}, and no plain linear map"
        parameters = stack.model.named_parameters(remove_duplicate=False)
        if any(parameter is linear.weight for name, parameter in parameters if not name.startswith(prefix)):
            return None, f"{of} shares its last linear map with other parts of the model"
        norm = out if path != out and has_feature_weight(added) else None
        joined = norm is None and (end := self._ending_norm(last)) is not None
        norm = end if joined else norm
        offset = None if norm is None else offset_of(stack.model.get_submodule(norm))
        if norm is not None and offset is None:
            return None, f"what {norm} puts out does not scale with its weight"
        return Writer(path, norm, taps["mlp_out"].scale, joined, offset or 0.0), ""

    def gaps(self, removed: Collection[int]) -> list[Gap]:
        """Find the gaps of an intact model, in depth order, as if some blocks were bypassed.

        The positions and the writers are those of the intact model.

        Args:
            removed: The blocks; there may be none.
        """
        return [_gap(run, len(self.stack), self) for run in runs_of(removed)]


def _gap(run: Sequence[int], num_blocks: int, writers: Writers, shift: int = 0) -> Gap:
    """Return the gap that a run of neighbours leaves.

    Args:
        run: The removed blocks.
        num_blocks: The number of blocks of the intact model.
        writers: The writers of the model.
        shift: How many blocks before the run are not in that model.
    """
    first, last = run[0], run[-1]
    before = first - 1 if first else None
    after = last + 1 if last + 1 < num_blocks else None
    writer, obstacle = (None, "nothing is before it")
    if before is not None:
        writer, obstacle = writers.after(before - shift, before)
    return Gap(tuple(run), before, after, first - shift, writer, obstacle)


def has_feature_weight(module: nn.Module) -> bool:
    """Whether the only parameters of a module are a weight per feature and possibly a bias, as those of a norm."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 1 or any(True for _ in module.children()):
        return False
    return all(parameter.ndim == 1 for parameter in module.parameters())


def offset_of(norm: nn.Module) -> float | None:
    """Return the constant, 0 or 1, that a norm adds to its weight before multiplying; None if it is neither.

    With the right constant, doubling the sum (and the bias) doubles the norm's output.
    """
    parameters = {name: value.detach() for name, value in norm.named_parameters()}
    weight = parameters["weight"]
    probe = torch.linspace(-1, 2, len(weight), dtype=weight.dtype, device=weight.device)[None]
    doubled = {name: 2 * value for name, value in parameters.items()}
    with torch.no_grad():
        expected = 2 * norm(probe)
        for offset in (0.0, 1.0):
            output = functional_call(norm, doubled | {"weight": 2 * (weight + offset) - offset}, (probe,))
            if deviation(expected, output) <= TOLERANCE:
                return offset
    return None


def _ending_norm(stack: BlockStack, last: int) -> str | None:
    """Return the path of the norm whose output is the block's output (post-norm); None if the block ends in a sum."""
    outputs: dict[str, torch.Tensor] = {}
    ends: list[torch.Tensor] = []
    with ExitStack() as hooks:
        for path, module in stack[last].named_modules():
            if has_feature_weight(module):

                def take(_module: nn.Module, _args: object, output: object, path: str = path) -> None:
                    outputs[path] = hidden_states(output)

                hooks.enter_context(module.register_forward_hook(take))
        hooks.enter_context(stack[last].register_forward_hook(lambda *call: ends.append(hidden_states(call[-1]))))
        last_hidden(stack)
    same = (path for path, output in outputs.items() if output.shape == ends[0].shape and torch.equal(output, ends[0]))
    return next((f"{stack.path}.{last}.{path}" for path in same), None)
