"""Which parameters learn, as copies of their own: the intact model shares the old ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from layerimp.errors import ModelError
from layerimp.healing import replace, trying

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp.healer import Case

ADAPTER = "distill"


@dataclass(frozen=True)
class Learner:
    """The part of the model that learns.

    Attributes:
        parameters: The parameters that an optimizer changes, in float32.
        values: Gives the current values of the model's parameters, by path; only to be called while learning lasts.
        settled: Gives a context in which the model is what it would be if learning ended now, rounded to the dtype that
            is stored.
    """

    parameters: list[nn.Parameter]
    values: Callable[[], Mapping[str, Tensor]]
    settled: Callable[[], AbstractContextManager[None]]


@contextmanager
def learning(case: Case, what: str, *, width: int, rank: int, seed: int = 0) -> Iterator[Learner]:
    """Let a part of the pruned model learn inside this context; afterwards both models are as before.

    Args:
        case: The models.
        what: `beside`, `lora` or `all`.
        width: With `beside`, how many blocks on either side of a gap.
        rank: With `lora`, the rank of a change.
        seed: With `lora`, of what a change starts from.

    Raises:
        ModelError: no parameter of the part can be trained.
    """
    with _frozen(case), trying(case.pruned.model):
        if what == "lora":
            with _adapted(case, rank, seed) as learner:
                yield learner
        else:
            yield _own(case, _beside(case, width) if what == "beside" else range(len(case.pruned)))


def _beside(case: Case, width: int) -> list[int]:
    """The blocks within `width` of a gap. A gap inside a block has that block on both of its sides."""
    found: set[int] = set()
    for gap in case.gaps:
        block, inside = gap.position.block, gap.position.part == "mlp"
        found |= set(range(block - width + inside, block + width))
    return sorted(index for index in found if 0 <= index < len(case.pruned))


@contextmanager
def _frozen(case: Case) -> Iterator[None]:
    """No parameter of either model asks for a gradient while this lasts."""
    asking = [p for stack in (case.intact, case.pruned) for p in stack.model.parameters() if p.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def _own(case: Case, blocks: Any) -> Learner:
    """Copies of all parameters of some blocks, but for those that stand in other places too."""
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

    @contextmanager
    def settled() -> Iterator[None]:
        with trying(model):
            _place(model, own)
            _replace_all(model, learned)
            yield

    return Learner(list(learned.values()), lambda: learned, settled)


def _replace_all(model: PreTrainedModel, values: Mapping[str, Tensor]) -> None:
    for path, value in values.items():
        replace(model, path, value)


def _wide(parameter: Tensor) -> torch.dtype:
    """At least float32: a step is smaller than what half precision can add."""
    return torch.promote_types(parameter.dtype, torch.float32)


@contextmanager
def _adapted(case: Case, rank: int, seed: int) -> Iterator[Learner]:
    """Low-rank changes of all linear maps in blocks, by peft."""
    model: PreTrainedModel = case.pruned.model
    linear = {
        f"{case.pruned.path}.{index}.{name}": module
        for index, block in enumerate(case.pruned)
        for name, module in block.named_modules()
        if type(module) in (nn.Linear, Conv1D)
    }
    if not linear:
        raise ModelError(f"the blocks of {type(model).__name__} have no plain linear maps, which lora changes")
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(linear), fan_in_fan_out=_transposed(linear))
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
        changed: dict[str, Any] = {path: model.get_submodule(path) for path in linear}
        parameters = [p for module in changed.values() for p in module.parameters() if p.requires_grad]
        for parameter in parameters:
            parameter.data = parameter.data.to(_wide(parameter))

        def values() -> dict[str, Tensor]:
            with torch.no_grad():
                return {
                    f"{path}.weight": linear[path].weight.float() + module.get_delta_weight(ADAPTER).float()
                    for path, module in changed.items()
                }

        @contextmanager
        def settled() -> Iterator[None]:
            merged = values()
            _place(model, linear)
            try:
                with trying(model):
                    _replace_all(model, merged)
                    yield
            finally:
                _place(model, changed)

        yield Learner(parameters, values, settled)
    finally:
        _place(model, linear)
        vars(model).pop("peft_config", None)  # else peft takes the model for one that it changes already


def _place(model: PreTrainedModel, parts: Mapping[str, nn.Module | nn.Parameter]) -> None:
    """Put modules or parameters where their paths say."""
    for path, part in parts.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, part)


def _transposed(linear: Mapping[str, nn.Module]) -> bool:
    """Whether the maps hold their matrix [in, out], as GPT-2's do."""
    return all(isinstance(module, Conv1D) for module in linear.values())
