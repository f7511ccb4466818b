"""A healer that keeps its contracts, and for each contract a healer that breaks it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from layerimp import Healer
from layerimp.healer import Repair
from layerimp.healing import states


class Idle(Healer):
    """Looks at every gap, and does nothing."""

    name = "idle"

    def heal(self, case: Any) -> list[Repair]:
        return [self.repair(case, gap) for gap in case.gaps]

    def repair(self, case: Any, gap: Any) -> Repair:
        for state in states(case, gap, case.batches):
            assert state.stream.shape == state.target.shape
        return Repair(gap, "nothing")


class Forgetful(Idle):
    """Reports no gap."""

    def heal(self, case: Any) -> list[Repair]:
        return super().heal(case)[1:]


class Reseeding(Idle):
    """Draws from the global generator."""

    def repair(self, case: Any, gap: Any) -> Repair:
        torch.rand(1)
        return super().repair(case, gap)


class Hooked(Idle):
    """Leaves a hook on the intact model."""

    def repair(self, case: Any, gap: Any) -> Repair:
        case.intact[0].register_forward_hook(lambda *_: None)
        return super().repair(case, gap)


class Trusting(Idle):
    """Removes its hook only if no error occurs."""

    def repair(self, case: Any, gap: Any) -> Repair:
        hook = case.intact[0].register_forward_hook(lambda *_: None)
        repair = super().repair(case, gap)
        hook.remove()
        return repair


class Untying(Idle):
    """Replaces a tied parameter in only one of its places."""

    def repair(self, case: Any, gap: Any) -> Repair:
        head = case.pruned.model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone())
        return super().repair(case, gap)


class Unchecked(Idle):
    """Uses the result even if it is not finite."""

    def repair(self, case: Any, gap: Any) -> Repair:
        shift = sum(float((state.target - state.target).sum()) for state in states(case, gap, case.batches))
        norm = case.pruned.model.model.norm if hasattr(case.pruned.model.model, "norm") else None
        if norm is not None:
            norm.weight = nn.Parameter(norm.weight.detach() + shift)
        return super().repair(case, gap)


class Moody(Idle):
    """Says something else each time."""

    turn = 0

    def repair(self, case: Any, gap: Any) -> Repair:
        Moody.turn += 1
        return Repair(gap, "nothing", numbers={"turn": Moody.turn})


class Secretive(Idle):
    """Reads further text and does not declare it."""

    def repair(self, case: Any, gap: Any) -> Repair:
        assert sum(len(batch["input_ids"]) for batch in case.further) >= 0
        return super().repair(case, gap)


class Rebuilding(Idle):
    """Replaces an activation, which no checkpoint records."""

    def repair(self, case: Any, gap: Any) -> Repair:
        for block in case.pruned:
            if hasattr(getattr(block, "mlp", None), "act_fn"):
                block.mlp.act_fn = nn.Tanh().eval()
        return super().repair(case, gap)


class Parochial(Idle):
    """Knows the names of one architecture."""

    def repair(self, case: Any, gap: Any) -> Repair:
        assert case.pruned.model.model.layers is not None
        return super().repair(case, gap)


WRONG_HEALERS: list[tuple[type[Healer], str, str]] = [
    (Forgetful, "every gap is reported", "tells of 0 gaps"),
    (Reseeding, "the intact model stays", "random generator"),
    (Hooked, "the intact model stays", "a hook on"),
    (Trusting, "the intact model stays in a failure", "a hook on"),
    (Secretive, "further text is declared", "does not declare reads_further"),
    (Untying, "parameters are replaced", "no longer tied"),
    (Unchecked, "nan is refused", "holds a NaN"),
    (Moody, "healing is repeatable", "it says"),
    (Rebuilding, "the result is a stock checkpoint", "roundings off"),
    (Parochial, "other architectures are healed or refused", "AttributeError"),
]
