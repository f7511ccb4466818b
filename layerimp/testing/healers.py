"""The contracts of a healer, checked on tiny models in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from layerimp.fidelity import Distance, Loss
from layerimp.healer import Case, Healer
from layerimp.healing.engine import Healed, heal_beside
from layerimp.healing.gaps import find_gaps
from layerimp.healing.judging import Judge
from layerimp.healing.loss import HeldOutLoss
from layerimp.healing.parameters import changed, held_by
from layerimp.models.discovery import find_blocks
from layerimp.surgery.removal import prepare
from layerimp.testing.contracts import Contracts, require, unharmed
from layerimp.testing.tiny import batch, padded_batch, tiny_classifier, tiny_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.blocks.stack import Batch

GONE = (1, 3)
"""The removed blocks: one gap is inside the stack, and one at its end."""
TEXT = (batch(6, 16, seed=1), padded_batch((12, 5, 9), seed=2))


def _case(model: PreTrainedModel) -> Case:
    """Make a healer's input directly, without the engine, which would undo repairs that do not lower the loss."""
    intact = find_blocks(model)
    pruned = find_blocks(prepare(intact, GONE).beside())
    loss, judge = HeldOutLoss(intact, TEXT[1:]), Judge(intact, TEXT[1:])
    gaps = find_gaps(pruned, GONE)
    return Case(intact, pruned, gaps, TEXT[:1], TEXT[1:], lambda: loss.of(pruned), lambda: judge.of(pruned))


class _Unreadable(list["Batch"]):
    """Text that cannot be read to its end."""

    def __iter__(self) -> Iterator[Batch]:
        yield self[0]
        raise OSError("the text is gone")


class _Further:
    """Further text, and whether it was read."""

    was_read = False

    def __iter__(self) -> Iterator[Batch]:
        self.was_read = True
        yield batch(4, 16, seed=3)


class HealerContracts(Contracts[Healer]):
    """The contracts of a healer."""

    def _healed(self, model: PreTrainedModel, removed: Sequence[int] = GONE) -> Healed:
        intact = find_blocks(model)
        return heal_beside(intact, find_blocks(prepare(intact, removed).beside()), removed, TEXT, self._fresh())

    def every_gap_is_reported(self) -> None:
        """The healer reports for each gap what was done there.

        `heal` returns one `Repair` for each gap, in the order of the gaps.
        """
        for removed in ([1], [0, 2], GONE):
            repairs = self._healed(tiny_model(), removed).repairs
            require(all(repair.done for repair in repairs), "a repair does not say what was done")

    def the_intact_model_stays(self) -> None:
        """Weights, hooks, modes and configuration of the intact model, and the random generators, are as before.

        Replace parameters of the pruned model with `layerimp.healing.replace`; both models hold the same tensors.
        """
        model = tiny_model()
        case = _case(model)
        with unharmed(model):
            self._fresh().at_every_gap(case)

    def the_intact_model_stays_in_a_failure(self) -> None:
        """If healing fails half way, neither model keeps a hook, and no weight of the intact model is changed.

        Make hooks and patches context managers.
        """
        model = tiny_model()
        case = _case(model)
        # The loss and the distance can be measured only once: a second time raises a StopIteration.
        losses, distances = iter([Loss([1.0], [1])]), iter([Distance(Loss([1.0], [1]))])
        case = replace(case, batches=_Unreadable(TEXT), held_out=_Unreadable(TEXT))
        case = replace(case, loss=lambda: next(losses), distance=lambda: next(distances))
        before = Snapshot.of(case.pruned.model)
        with unharmed(model), suppress(Exception):  # a healer may fail on unreadable text in any way
            self._fresh().at_every_gap(case)
        left = [" ".join(fact) for fact in before.changes(Snapshot.of(case.pruned.model), weights=False)]
        require(not left, f"on the pruned model, {', '.join(left[:3])} is left behind")

    def further_text_is_declared(self) -> None:
        """A healer that reads `Case.further` declares `reads_further`.

        Otherwise `--heal-text` is refused with it.
        """
        further = _Further()
        self._fresh().at_every_gap(replace(_case(tiny_model()), further=further))
        declared = self.component.reads_further or not further.was_read
        require(declared, "it reads Case.further and does not declare reads_further, so that --heal-text is refused")

    def parameters_are_replaced(self) -> None:
        """New parameters keep the old dtype and have memory of their own; tied weights stay tied."""
        for dtype in (torch.float32, torch.bfloat16):
            case = _case(tiny_model(dtype=dtype, tie_word_embeddings=True))
            ours: Any = case.pruned.model
            before = held_by(ours)
            self._fresh().at_every_gap(case)
            require(ours.lm_head.weight is ours.model.embed_tokens.weight, "a tied weight is no longer tied")
            lent = {parameter.data_ptr() for parameter in case.intact.model.parameters()}
            for path in changed(before, ours):
                parameter = ours.get_parameter(path)
                require(parameter.dtype == dtype, f"{path} is in {parameter.dtype}, where the model is in {dtype}")
                require(parameter.data_ptr() not in lent, f"{path} lies in memory that the intact model uses")
                require(parameter.is_contiguous(), f"{path} is a view of something else")

    def nan_is_refused(self) -> None:
        """If the intact model puts out a NaN, no parameter of the pruned model becomes NaN or infinite."""
        case = _case(tiny_model())
        with torch.no_grad():
            next(case.intact[1].parameters()).fill_(torch.nan)  # a block that the pruned model does not have
        loss = Loss([1.0], [1])
        case = replace(case, batches=TEXT, held_out=TEXT[:1], loss=lambda: loss, distance=lambda: Distance(loss))
        try:
            self._fresh().at_every_gap(case)
        except LayerimpError:
            return
        bad = [path for path, parameter in case.pruned.model.named_parameters() if not parameter.isfinite().all()]
        require(not bad, f"{bad[:1]} holds a NaN or an infinity")

    def healing_is_repeatable(self) -> None:
        """The same models and text give the same weights, bit for bit."""
        first, second = self._healed(tiny_model()), self._healed(tiny_model())
        differs = first_difference(first.model, second.model)
        require(differs is None, f"{differs} is another in a second run")
        require(first.repairs == second.repairs, f"it says {second.repairs} after {first.repairs}")

    def the_result_is_a_stock_checkpoint(self) -> None:
        """The healed model is saved, and loaded back with the stock class it equals the model in memory."""
        with TemporaryDirectory() as folder:
            write(self._healed(tiny_model()).model, None, Path(folder))

    def other_architectures_are_healed_or_refused(self) -> None:
        """A post-norm classifier, sandwich norms and experts are healed, left alone with a reason, or refused."""
        others = (tiny_model("gemma3_text", head_dim=8), tiny_model("mixtral", num_local_experts=4), tiny_model("gpt2"))
        for model in (tiny_classifier(), *others):
            try:
                self._healed(model)
            except LayerimpError as error:
                require(not error.names_plugin, f"{type(model).__name__}: {error}")
