"""The contracts of a healer, checked on tiny models in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from layerimp.blocks.equivalence import first_difference
from layerimp.blocks.snapshot import Snapshot
from layerimp.checkpoint.saving import write
from layerimp.errors import LayerimpError
from layerimp.healer import Case, Healer, Loss
from layerimp.healing.engine import Healed, heal_beside
from layerimp.healing.gaps import find_gaps
from layerimp.healing.loss import HeldOutLoss
from layerimp.healing.parameters import changed, held_by
from layerimp.models.discovery import find_blocks
from layerimp.steps import Step
from layerimp.surgery.removal import prepare
from layerimp.testing.assertions import leaving_the_generator, require, require_unharmed
from layerimp.testing.tiny import batch, padded_batch, tiny_classifier, tiny_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch, BlockStack

GONE: tuple[Step, ...] = (1, 3)
"""The removed blocks: one gap is inside the stack, and one at its end."""
TEXT = (batch(6, 16, seed=1), padded_batch((12, 5, 9), seed=2))


def _fresh(healer: Healer) -> Healer:
    return type(healer)(healer.config)


def _parted(model: PreTrainedModel, removed: Sequence[Step] = GONE) -> tuple[BlockStack, BlockStack]:
    """Return the intact model, and a pruned model that shares its tensors."""
    stack = find_blocks(model)
    return stack, find_blocks(prepare(stack, removed).beside())


def _healed(healer: Healer, model: PreTrainedModel, removed: Sequence[Step] = GONE) -> tuple[Healed, BlockStack]:
    intact, pruned = _parted(model, removed)
    return heal_beside(intact, pruned, removed, TEXT, _fresh(healer)), intact


def _case(intact: BlockStack, pruned: BlockStack) -> Case:
    """Make a healer's input directly, without the engine."""
    loss = HeldOutLoss(intact, TEXT[1:])
    return Case(intact, pruned, find_gaps(pruned, GONE), TEXT[:1], TEXT[1:], lambda: loss.of(pruned))


def every_gap_is_reported(healer: Healer) -> None:
    """The healer reports for each gap what was done there."""
    others: tuple[tuple[Step, ...], ...] = ((1,), (0, 2), ("1/2",))
    for removed in (*others, GONE):
        healed, _ = _healed(healer, tiny_model(), removed)
        require(all(repair.done for repair in healed.repairs), "a repair does not say what was done")


def intact_stays(healer: Healer) -> None:
    """Weights, hooks, modes and configuration of the intact model, and the random generators, are as before."""
    model = tiny_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    snapshot = Snapshot.of(model)
    intact, pruned = _parted(model)
    with leaving_the_generator():
        _fresh(healer).at_every_gap(_case(intact, pruned))
    require_unharmed(model, snapshot, weights)


class _Failing(Sequence["Batch"]):
    """Text that cannot be read."""

    def __getitem__(self, index: Any) -> Any:
        raise OSError("the text is gone")

    def __iter__(self) -> Iterator[Batch]:
        yield TEXT[0]
        raise OSError("the text is gone")

    def __len__(self) -> int:
        return 2


def intact_stays_in_a_failure(healer: Healer) -> None:
    """If healing fails half way, neither model keeps a hook, and no weight of the intact model is changed."""
    model = tiny_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    snapshot = Snapshot.of(model)
    intact, pruned = _parted(model)
    snapshot_of_pruned = Snapshot.of(pruned.model)
    case = Case(intact, pruned, find_gaps(pruned, GONE), _Failing(), _Failing(), _Unmeasured())
    with suppress(Exception):  # a healer may fail on unreadable text in any way
        _fresh(healer).at_every_gap(case)
    require_unharmed(model, snapshot, weights)
    left = snapshot_of_pruned.traces(Snapshot.of(pruned.model))
    require(not left, f"on the pruned model, {', '.join(left[:3])} is left behind")


class _Unmeasured:
    """A loss that can be measured only once."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Loss:
        self.asked += 1
        if self.asked > 1:
            raise OSError("the text is gone")
        return Loss([1.0], [1])


class _Further:
    """Further text, and whether it was read."""

    def __init__(self) -> None:
        self.was_read = False

    def __iter__(self) -> Iterator[Batch]:
        self.was_read = True
        yield batch(4, 16, seed=3)


def further_text_is_declared(healer: Healer) -> None:
    """A healer that reads `Case.further` declares `reads_further`."""
    intact, pruned = _parted(tiny_model())
    further = _Further()
    with leaving_the_generator():
        _fresh(healer).at_every_gap(replace(_case(intact, pruned), further=further))
    declared = healer.reads_further or not further.was_read
    require(declared, "it reads Case.further and does not declare reads_further, so that --heal-text is refused")


def parameters_are_replaced(healer: Healer) -> None:
    """New parameters keep the old dtype and have memory of their own; tied weights stay tied."""
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model(dtype=dtype, tie_word_embeddings=True)
        intact, pruned = _parted(model)
        ours: Any = pruned.model
        before = held_by(ours)
        with leaving_the_generator():  # without the engine, which would undo repairs that do not lower the loss
            _fresh(healer).at_every_gap(_case(intact, pruned))
        require(ours.lm_head.weight is ours.model.embed_tokens.weight, "a tied weight is no longer tied")
        lent = {parameter.data_ptr(): path for path, parameter in intact.model.named_parameters()}
        for path in changed(before, ours):
            parameter = ours.get_parameter(path)
            require(parameter.dtype == dtype, f"{path} is in {parameter.dtype}, where the model is in {dtype}")
            require(parameter.data_ptr() not in lent, f"{path} lies in memory that the intact model uses")
            require(parameter.is_contiguous(), f"{path} is a view of something else")


def nan_is_refused(healer: Healer) -> None:
    """If the intact model puts out a NaN, no parameter of the pruned model becomes NaN or infinite."""
    intact, pruned = _parted(tiny_model())
    with torch.no_grad():
        next(intact[1].parameters()).fill_(torch.nan)  # a block that the pruned model does not have
    case = Case(intact, pruned, find_gaps(pruned, GONE), TEXT, TEXT[:1], lambda: Loss([1.0], [1]))
    try:
        _fresh(healer).at_every_gap(case)
    except LayerimpError:
        return
    bad = [path for path, parameter in pruned.model.named_parameters() if not parameter.isfinite().all()]
    require(not bad, f"{bad[:1]} holds a NaN or an infinity")


def healing_is_repeatable(healer: Healer) -> None:
    """The same models and text give the same weights, bit for bit."""
    first, second = (_healed(healer, tiny_model())[0] for _ in range(2))
    differs = first_difference(first.model, second.model)
    require(differs is None, f"{differs} is another in a second run")
    require(first.repairs == second.repairs, f"it says {second.repairs} after {first.repairs}")


def result_is_a_stock_checkpoint(healer: Healer) -> None:
    """The healed model is saved, and loaded back with the stock class it equals the model in memory."""
    healed, _ = _healed(healer, tiny_model())
    with TemporaryDirectory() as folder:
        write(healed.model, None, Path(folder))


def other_architectures_are_healed_or_refused(healer: Healer) -> None:
    """A post-norm classifier, sandwich norms and experts are healed, left alone with a reason, or cleanly refused."""
    others = (tiny_model("gemma3_text", head_dim=8), tiny_model("mixtral", num_local_experts=4), tiny_model("gpt2"))
    for model in (tiny_classifier(), *others):
        try:
            _healed(healer, model)
        except LayerimpError as error:
            require(not error.names_plugin, f"{type(model).__name__}: {error}")


def healer_contracts() -> dict[str, Callable[[Any], None]]:
    """Return the contracts that a healer has to keep, by name."""
    return {
        "every gap is reported": every_gap_is_reported,
        "the intact model stays": intact_stays,
        "the intact model stays in a failure": intact_stays_in_a_failure,
        "further text is declared": further_text_is_declared,
        "parameters are replaced": parameters_are_replaced,
        "a NaN is refused": nan_is_refused,
        "healing is repeatable": healing_is_repeatable,
        "the result is a stock checkpoint": result_is_a_stock_checkpoint,
        "other architectures are healed or refused": other_architectures_are_healed_or_refused,
    }
