"""Select the parameters to train, and copy them, because the intact model shares the originals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from layerimp.errors import ModelError
from layerimp.healing import rounded, trying
from layerimp_distill.room import linear_maps

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp.blocks import BlockStack
    from layerimp.healer import Case

ADAPTER = "distill"


Values = Mapping[str, Callable[[], "Tensor"]]
"""Returns the value of each trained parameter of the model, by path; made one at a time."""
Parts = Mapping[str, nn.Module | nn.Parameter]
"""Modules and parameters of a model, by path."""


@dataclass(frozen=True)
class Learner:
    """The part of the model that is trained.

    Attributes:
        parameters: The parameters that the optimizer changes, in float32 or wider.
        values: The current values of the trained parameters of the model, also after the `learning` context.
        settled: Returns a context in which the model has the weights that it would have if the training ended now,
            rounded to the dtype in which they are stored. They exist for one block at a time.
    """

    parameters: list[nn.Parameter]
    values: Values
    settled: Callable[[], AbstractContextManager[None]]


@contextmanager
def learning(case: Case, what: str, *, width: int, rank: int, seed: int = 0) -> Iterator[Learner]:
    """Make a part of the pruned model trainable inside this context; afterwards both models are as before.

    Args:
        case: The models.
        what: The part to train: `all`, `beside`, `lora` or `lora-beside`.
        width: Beside the gaps, the number of blocks to train on either side.
        rank: With low-rank updates, the rank of each.
        seed: With low-rank updates, the seed of the initial values of the updates.

    Yields:
        The parameters to train.

    Raises:
        ModelError: the selected part has no parameter that can be trained.
    """
    with _frozen(case), trying(case.pruned.model):
        blocks = _beside(case, width) if what.endswith("beside") else range(len(case.pruned))
        if what.startswith("lora"):
            with _adapted(case, blocks, rank, seed) as learner:
                yield learner
        else:
            yield _own(case, blocks)


def _beside(case: Case, width: int) -> Sequence[int]:
    """Return the blocks within `width` of a gap."""
    indices = {index for gap in case.gaps for index in range(gap.position - width, gap.position + width)}
    return sorted(index for index in indices if 0 <= index < len(case.pruned))


@contextmanager
def _frozen(case: Case) -> Iterator[None]:
    """Freeze all parameters of both models inside this context."""
    asking = [p for stack in (case.intact, case.pruned) for p in stack.model.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def _own(case: Case, blocks: Iterable[int]) -> Learner:
    """Train copies of all parameters of some blocks, except parameters that are shared with other modules."""
    model = case.pruned.model
    places = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    own: dict[str, nn.Parameter] = {}
    for index in blocks:
        for name, old in case.pruned[index].named_parameters():
            if places[id(old)] == 1 and old.is_floating_point():
                own[f"{case.pruned.path}.{index}.{name}"] = old
    if not own:
        raise ModelError(f"no block of {type(model).__name__} has parameters of its own to train")
    learned = {path: nn.Parameter(old.detach().to(_wide(old), copy=True)) for path, old in own.items()}
    _place(model, learned)

    def merged(path: str) -> Parts:
        return {path: rounded(model, path, own[path], learned[path])}

    def before(path: str) -> Parts:
        return {path: learned[path]}

    values = {path: parameter.detach for path, parameter in learned.items()}
    return Learner(list(learned.values()), values, partial(_merging, case.pruned, list(learned), merged, before))


@contextmanager
def _merging(
    stack: BlockStack, paths: Sequence[str], merged: Callable[[str], Parts], before: Callable[[str], Parts]
) -> Iterator[None]:
    """A context in which a block has its final weights while it runs, so that those of one block exist at a time.

    Args:
        stack: The blocks.
        paths: What learns.
        merged: Makes what takes its place, by path.
        before: Returns what the model has there in training.
    """
    with ExitStack() as undo:
        for index, block in enumerate(stack):
            own = [path for path in paths if path.startswith(f"{stack.path}.{index}.")]

            def put(parts: Callable[[str], Parts], *_call: Any, own: Sequence[str] = own) -> None:
                for path in own:
                    _place(stack.model, parts(path))

            undo.callback(put, before)
            undo.callback(block.register_forward_pre_hook(partial(put, merged)).remove)
            undo.callback(block.register_forward_hook(partial(put, before)).remove)
        yield


def _wide(parameter: Tensor) -> torch.dtype:
    """Return a dtype of at least float32: in half precision a step would be lost in rounding."""
    return torch.promote_types(parameter.dtype, torch.float32)


@contextmanager
def _adapted(case: Case, indices: Iterable[int], rank: int, seed: int) -> Iterator[Learner]:
    """Train low-rank updates, made by peft, of all linear maps in some blocks."""
    model: PreTrainedModel = case.pruned.model
    blocks = model.get_submodule(case.pruned.path)
    paths = [f"{index}.{path}" for index in indices for path in linear_maps(case.pruned[index])]
    linear = {f"{case.pruned.path}.{path}": blocks.get_submodule(path) for path in paths}
    if not linear:
        raise ModelError(f"the blocks of {type(model).__name__} have no plain linear maps, which lora changes")
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=paths, fan_in_fan_out=_transposed(linear))
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            # Given the model, peft would go by its type, and adapt fused experts in place of linear maps.
            inject_adapter_in_model(settings, blocks, adapter_name=ADAPTER)
        changed: dict[str, Any] = {path: model.get_submodule(path) for path in linear}
        weights: dict[str, Any] = {path: module.weight for path, module in linear.items()}
        parameters = [p for module in changed.values() for p in module.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.data = parameter.data.to(_wide(parameter))

        def value(path: str) -> Tensor:
            with torch.no_grad():
                delta: Tensor = changed[path].get_delta_weight(ADAPTER)
                whole: Tensor = weights[path].float() + delta.float()
                return whole

        def merged(path: str) -> Parts:
            weight = f"{path}.weight"
            return {path: linear[path], weight: rounded(model, weight, weights[path], value(path))}

        def before(path: str) -> Parts:
            return {path: changed[path], f"{path}.base_layer.weight": weights[path]}

        values = {f"{path}.weight": partial(value, path) for path in changed}
        yield Learner(parameters, values, partial(_merging, case.pruned, list(changed), merged, before))
    finally:
        _place(model, linear)
        vars(blocks).pop("peft_config", None)  # otherwise peft would treat the blocks as already adapted


def _place(model: PreTrainedModel, parts: Parts) -> None:
    """Set modules or parameters at their paths in the model."""
    for path, part in parts.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, part)


def _transposed(linear: Mapping[str, nn.Module]) -> bool:
    """Return whether the maps store their matrix as [in, out], as GPT-2's do."""
    return all(isinstance(module, Conv1D) for module in linear.values())
