"""The healer `distill`: train the blocks beside each gap to reproduce the intact model."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch

from layerimp import Healer
from layerimp.errors import ModelError
from layerimp.healer import Case, Effort, Repair, Scope
from layerimp.healing import Teaching, replace, trying
from layerimp.registry.catalog import registry
from layerimp_distill.options import DistillConfig

if TYPE_CHECKING:
    from layerimp_distill.course import Outcome

RISE = 1.01
"""A held-out loss that rises by more than this factor speaks for a lower learning rate."""


class Distill(Healer):
    """Trains the blocks beside the gaps to reproduce the intact model, if that lowers the held-out loss.

    Attributes:
        outcome: The held-out loss in the course of the last training; None before it.
    """

    name = "distill"
    reference = (
        "Hinton et al. 2015, arXiv:1503.02531; after pruning: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679"
    )
    Config = DistillConfig
    reads_further = True

    config: DistillConfig
    outcome: Outcome | None = None

    def __init__(self, config: DistillConfig | None = None) -> None:
        super().__init__(config)
        first = registry().create("healer", self.config.first, {}) if self.config.first else None
        assert first is None or isinstance(first, Healer)
        self._first = first
        self.parts = () if first is None else (first,)

    def effort(self, scope: Scope) -> Effort | None:
        """Return the work of the training within its limits, with the checks, and that of the first healer.

        A step runs the teacher and the student forward, and the student back: through about half of the blocks if only
        those beside the gaps learn.
        """
        config, before = self.config, Effort(0.0) if self._first is None else self._first.effort(scope)
        if before is None:
            return None
        of_batch = scope.rows / max(scope.batches, 1)
        per_step = of_batch / math.ceil(of_batch / config.rows) * scope.length if of_batch else 0.0
        limits = (config.steps and config.steps * per_step, config.tokens)
        trained = min((limit for limit in limits if limit is not None), default=math.inf)
        taught, headed = config.loss != "text", config.loss in ("divergence", "text")
        forward, back = 1 + taught, {"beside": 1.0, "lora": 1.5, "all": 2.0}[config.learns]
        checks = (config.checks + 2) * scope.held_out * scope.length
        return Effort(
            before.blocks + (forward + back) * trained + checks,
            before.head + headed * (forward + 1) * trained + checks,
            None if config.minutes is None else 60 * config.minutes,
        )

    def heal(self, case: Case) -> list[Repair]:
        """Run the healer named in the option `first`, if any, and then train.

        Raises:
            ModelError: the model computes in float16 on a CPU, or has nothing that can be trained.
            PredictionError: the models predict neither the next token nor a label.
        """
        model = case.pruned.model
        if model.dtype is torch.float16 and model.device.type == "cpu":
            raise ModelError("distill cannot train in float16 on a CPU: use --dtype float32 or bfloat16")
        from layerimp_distill.course import Limits
        from layerimp_distill.learning import learning
        from layerimp_distill.losses import loss_of
        from layerimp_distill.memory import Memory
        from layerimp_distill.training import train

        config = self.config
        limits = Limits(config.steps, config.tokens, config.minutes)
        memory = Memory(case.workspace())
        teaching = Teaching(case)
        loss = loss_of(config.loss, teaching, case.batches)
        done = self._first.at_every_gap(case) if self._first else [Repair(gap, "nothing") for gap in case.gaps]
        before = case.loss()
        with learning(case, config.learns, width=config.width, rank=config.rank, seed=config.seed) as learner:
            outcome = train(case, learner, loss, limits, config, memory, before=before.mean)
            values = learner.values()
        self.outcome = outcome
        if outcome.best is not None:
            with trying(model) as keep:
                for path, value in values.items():
                    replace(model, path, value)
                after = case.loss()
                if after.is_clearly_below(before):
                    keep()
                    numbers = {"loss_before": before.mean, "loss_after": after.mean}
                    numbers |= {"steps": float(outcome.best.steps), "tokens": float(outcome.best.tokens)}
                    return [_taught(repair, numbers) for repair in done]
        why = "training did not clearly lower the held-out loss"
        if outcome.peak > RISE * before.mean:
            why += f", which went from {before.mean:.2f} up to {outcome.peak:.2f}: a lower rate may help"
        return [dataclasses.replace(repair, why="; ".join(filter(None, (repair.why, why)))) for repair in done]


def _taught(earlier: Repair, numbers: dict[str, float]) -> Repair:
    """Return the repair of a gap by training, combined with the earlier healer's repair."""
    if earlier.done == "nothing":
        return Repair(earlier.gap, "distill", earlier.why, numbers)
    return Repair(earlier.gap, f"{earlier.done}, distill", earlier.why, {**earlier.numbers, **numbers})
