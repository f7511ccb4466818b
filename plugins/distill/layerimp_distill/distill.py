"""The healer `distill`: train what is left of a pruned model to reproduce the intact model."""

from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch

from layerimp import Healer
from layerimp.errors import ModelError
from layerimp.fidelity import Distance
from layerimp.healer import Case, Decision, Repair, Room, Scope
from layerimp.healing import Teaching, replace, trying
from layerimp.registry.catalog import registry
from layerimp_distill.options import DistillConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerimp.blocks import BlockStack
    from layerimp_distill.course import Check, Outcome
    from layerimp_distill.learning import Learner
    from layerimp_distill.memory import State
    from layerimp_distill.room import Plan

RISE = 1.01
"""A distance that rises by more than this factor speaks for a lower learning rate."""


class Distill(Healer):
    """Trains what is left to reproduce the intact model, if that brings it nearer.

    Attributes:
        outcome: The checks of the last training; None before it.
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

    def tokens(self, scope: Scope, rows: int) -> float | None:
        """The tokens of the training four times: the teacher, and the student forward and back; None without a limit.

        Those of the first healer are added.
        """
        from layerimp_distill.room import ROWS

        config, first = self.config, 0.0 if self._first is None else self._first.tokens(scope, rows)
        limits = (config.tokens, config.steps and config.steps * (config.rows or ROWS) * scope.length)
        trained = min((limit for limit in limits if limit is not None), default=None)
        return None if first is None or trained is None else first + 4 * trained

    def decide(self, pruned: BlockStack, scope: Scope, room: Room) -> Decision:
        """Return what learns in so much memory; see `Healer.decide`."""
        from layerimp_distill.room import needed, planned, without_change

        plan = planned(pruned, self.config, scope, room)
        words = plan.words(needed(pruned, self.config, plan, scope), room.free)
        if plan.learns.startswith("lora") and (left := without_change(pruned)):
            words += f"; {left:,} values in other matrices than linear maps, such as experts, do not learn"
        return Decision(words, {"learns": plan.learns, "rows": plan.rows})

    def heal(self, case: Case) -> list[Repair]:
        """Run the healer named in the option `first`, if any, and then train.

        Raises:
            ModelError: the model computes in float16 on a CPU, or has nothing that can be trained.
            PredictionError: the models predict neither the next token nor a label.
        """
        model = case.pruned.model
        if model.dtype is torch.float16 and model.device.type == "cpu":
            raise ModelError("distill cannot train in float16 on a CPU: use --dtype float32 or bfloat16")
        from layerimp_distill.course import Outcome
        from layerimp_distill.descent import Task
        from layerimp_distill.learning import learning
        from layerimp_distill.memory import Memory
        from layerimp_distill.training import Training

        config = self.config
        memory = Memory(case.workspace())
        teaching = Teaching(case)
        state = memory.read()
        began = time.monotonic()
        given = case.distance()
        seconds = time.monotonic() - began
        first = time.monotonic()
        done, start = self._before(case, given)
        began = case.began + time.monotonic() - first  # the first healer does not count
        plan = self._plan(case, state)  # from here on: what earlier healing holds in memory is not free
        with _telling_what_takes_less(plan, case.pruned):
            with learning(case, plan.learns, width=config.width, rank=config.rank, seed=config.seed) as learner:
                task, watch = Task(case, learner, teaching, config, plan), partial(self.watch, case, learner)
                training = Training(task, memory, Outcome(start, given), seconds, watch, time.monotonic() - began)
                if state is not None:
                    training.resume(state)
                else:
                    case.progress.note(f"distill: begins at the rate {training.rate:.1e}")
                del state  # its values have taken their places, and would stay beside them
                training.run()
            self.outcome = outcome = training.outcome
            del training  # and what its optimizer keeps: the healed weights take its place
            best = outcome.best if outcome.best and outcome.best.distance.is_better_than(start) else None
            for path, value in learner.values.items() if best else ():
                replace(model, path, value())
        if best:
            numbers = start.numbers("before") | best.distance.numbers("after")
            numbers |= {"steps": float(best.steps), "tokens": float(best.tokens)}
            numbers |= {"rate": best.rate, "rows": float(plan.rows)}
            return [_taught(repair, plan, numbers) for repair in done]
        why = "training did not bring the model clearly nearer to the intact one"
        if config.rate is not None and outcome.peak > RISE:
            why += f", and took it as far as {outcome.peak:.0%} of the distance before: a lower rate may help"
        return [dataclasses.replace(repair, why="; ".join(filter(None, (repair.why, why)))) for repair in done]

    def _before(self, case: Case, start: Distance) -> tuple[list[Repair], Distance]:
        """Run the first healer, and keep its work by the same rule as that of the training.

        Returns:
            Its repairs, and the distance from which the training starts.
        """
        first = self._first
        if first is None:
            return [Repair(gap, "nothing") for gap in case.gaps], start
        with trying(case.pruned.model) as keep:
            done = first.at_every_gap(case)
            if all(repair.done == "nothing" for repair in done):
                return done, start
            after = case.distance()
            if after.is_better_than(start):
                keep()
                return done, after
        why = f"{first.name} was taken back before the training: {after.words(start)}"
        case.progress.note(why)
        return [Repair(gap, "nothing", why) for gap in case.gaps], start

    def watch(self, case: Case, learner: Learner, check: Check) -> None:
        """Is called at each check of a training, in time that does not count; for subclasses that look on."""

    def _plan(self, case: Case, state: State | None) -> Plan:
        """Return what learns: as in the state of an interrupted training, or as the memory allows."""
        from layerimp.blocks.memory import free_bytes
        from layerimp_distill.room import Plan, planned

        if state is not None:
            return Plan(*state.plan)  # type: ignore[arg-type]
        length = max(case.further_length, *(batch["input_ids"].shape[1] for batch in case.batches))
        scope = Scope(gaps=len(case.gaps), length=length)
        room = Room(case.pruned.device.type, free_bytes(case.pruned.device))
        case.progress.note(f"distill: {self.decide(case.pruned, scope, room).words}")
        return planned(case.pruned, self.config, scope, room)


@contextmanager
def _telling_what_takes_less(plan: Plan, pruned: BlockStack) -> Iterator[None]:
    """A context in which too little memory is an error of the model that says what helps."""
    from layerimp_distill.room import linear_maps

    try:
        yield
    except torch.OutOfMemoryError as error:
        ways = ["distill.rows=1"] if plan.rows > 1 else []
        ways += ["distill.learns=lora-beside"] if plan.learns != "lora-beside" and any(map(linear_maps, pruned)) else []
        less = f"--set {' or '.join(ways)} takes less" if ways else "shorter rows (--max-length) take less"
        raise ModelError(f"distill needs more memory than is free: {less}") from error


def _taught(earlier: Repair, plan: Plan, numbers: dict[str, float]) -> Repair:
    """Return the repair of a gap by training, combined with the earlier healer's repair."""
    done = f"distill ({plan.learns})"
    if earlier.done == "nothing":
        return Repair(earlier.gap, done, earlier.why, numbers)
    return Repair(earlier.gap, f"{earlier.done}, {done}", earlier.why, {**earlier.numbers, **numbers})
