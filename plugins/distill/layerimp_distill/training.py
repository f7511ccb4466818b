"""Train under limits on steps, tokens and time, and keep the step that is nearest to the intact model."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW

from layerimp.blocks import join_rows
from layerimp.errors import NonFiniteError
from layerimp.fidelity import Distance, Loss
from layerimp.models import special_ids
from layerimp_distill.course import CHECKING, Check, Limits, Outcome, advances
from layerimp_distill.losses import tokens_in
from layerimp_distill.memory import RARELY, Memory, State
from layerimp_distill.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from layerimp.healer import Case
    from layerimp.sweep import Batch
    from layerimp_distill.learning import Learner
    from layerimp_distill.losses import Loss as TrainingLoss
    from layerimp_distill.options import DistillConfig
    from layerimp_distill.room import Plan

PERCENT = 100
WARM_UP = 0.05
"""The share of the training during which the learning rate rises."""
RATES = (3e-5, 1e-4, 3e-4)
"""The learning rates that are tried; where trials do not decide, training begins with the middle one."""
FEWEST = 5
"""A trial of fewer steps says nothing."""
TRIALS = 0.1
"""The largest share of the training that trials may take."""
THIRD = 1 / 3
LOWEST = 1e-7
"""A rate at which a model still gets worse, and below which training ends."""
LARGEST_GRADIENT = 1.0
"""Gradients are scaled down to this norm."""


@dataclass(frozen=True)
class Task:
    """What is trained, and how.

    Attributes:
        case: The models and the text.
        learner: The parameters to train.
        loss: The training loss.
        terms: Counts the terms of a batch that the loss is the mean of.
        config: The options.
        plan: The rows of a step.
    """

    case: Case
    learner: Learner
    loss: TrainingLoss
    terms: Callable[[Batch], int]
    config: DistillConfig
    plan: Plan


class Training:
    """A training, which goes from step to step, and back where the model gets worse.

    A loss or a distance that is NaN or infinite counts as worse. A rate that the user names stays; then only the best
    step is kept, and a loss that is not finite ends the training.

    An interrupted training resumes from its last saved state. If only steps or tokens are limited, the result is the
    same as without the interruption.

    Args:
        task: What is trained, and how.
        memory: Where the state is saved.
        start: The distance from the intact model before the training.
        seconds: How long it took to measure that.
        watch: Is shown each check, in time that does not count.
        before: How long everything before the training took that counts for its limit, in seconds.

    Attributes:
        outcome: The checks so far.
        rate: The peak learning rate in force.
    """

    def __init__(
        self,
        task: Task,
        memory: Memory,
        start: Distance,
        seconds: float,
        watch: Callable[[Check], None] | None = None,
        before: float = 0.0,
    ) -> None:
        config, parameters = task.config, task.learner.parameters
        self._case, self._learner, self._loss, self._plan = task.case, task.learner, task.loss, task.plan
        self._terms = task.terms
        self._memory, self._judging, self._watch = memory, seconds, watch
        self._limits, self._fixed = Limits.of(config, seconds, before), config.rate is not None
        self._text = Text(task.case.batches, task.case.further, task.plan.rows, config.seed)
        if start.repeated is not None:  # a language model
            special = special_ids(task.case.pruned.model)
            self._text = replace(self._text, repeated=config.repeated, special=special)
        self.outcome, self.rate = Outcome(start), config.rate or RATES[len(RATES) // 2]
        self._steps = self._tokens = self._checked = 0
        self._spent = self._since = 0.0
        self._changing = False  # whether parameters and counts are of different steps
        self._unsaved = ""  # why the last state was not saved
        self._planned = config.checks
        if config.minutes is not None:
            self._planned = min(config.checks, max(2, int(CHECKING * 60 * config.minutes / max(seconds, 1e-9))))
        self._kept = [parameter.detach().clone() for parameter in parameters]
        self._renew()
        self._began = time.monotonic()

    def resume(self, state: State) -> None:
        """Go on from the saved state of an interrupted training."""
        self.rate, self._since, self._spent = state.rate, state.since, state.spent
        self._steps, self._tokens = state.steps, state.tokens
        self._planned, self._checked = state.planned, state.checked
        self._began = time.monotonic() - state.seconds
        start = self.outcome.start
        checks = []
        for steps, tokens, seconds, rate, plain, repeated in state.checks:
            again = start.repeated and Loss(repeated, start.repeated.counts)
            distance = Distance(Loss(plain, start.plain.counts), again)
            checks.append(Check(steps, tokens, seconds, rate, distance))
        self.outcome = Outcome(start, tuple(checks))
        self._put(state.values)
        device = self._learner.parameters[0].device
        self._kept = [value.to(device) for value in state.best_values]
        self._optimizer.load_state_dict(state.optimizer)
        self._scaler.load_state_dict(state.scaler)
        counted = f"{state.steps} step" + "s" * (state.steps != 1)
        self._case.progress.note(f"goes on with the training that was interrupted after {counted}")

    def run(self) -> None:
        """Train, and leave the parameters at the values of the best step.

        An interruption between two steps saves the state.
        """
        try:
            self._run()
        except KeyboardInterrupt:
            if self._steps and not self._changing:
                self._save()
            raise
        self._put(self._kept)

    def _run(self) -> None:
        with self._case.progress.stage("distill", PERCENT, unit="%") as advance:
            reported = 0
            timed = 1 if self._limits.minutes is None else 2  # the first step has costs that do not come again
            for rows in self._text.steps(self._steps):
                if self._spent >= 1.0 or self.rate < LOWEST:
                    break
                seconds, why = time.monotonic(), ""
                try:
                    self._step(rows, self.rate * schedule(self._spent, self._since))
                except NonFiniteError as error:
                    why = str(error)
                    if self._fixed:
                        self._case.progress.note(f"{why}; training ends there; a lower rate may help")
                        break
                first = self._steps + 1 == timed and not self._fixed
                tried = first and self._try_rates(time.monotonic() - seconds, sum(map(tokens_in, rows)))
                if why and not tried:
                    self._go_back(why)
                self._steps += 1
                self._tokens += sum(map(tokens_in, rows))
                self._account()
                self._changing = False
                advance(int(self._spent * PERCENT) - reported)
                reported = int(self._spent * PERCENT)

    def _account(self) -> None:
        """Count what is spent, check the distance if that is due, and save the state from time to time."""
        seconds = time.monotonic() - self._began
        self._spent = min(self._limits.spent(self._steps, self._tokens, seconds), 1.0)
        due = int(self._spent * self._planned)
        if due > self._checked:
            self._checked = due
            self._check(seconds)
        # A finished training is saved too, in case a later stage of the command is interrupted, unless it was so short
        # that it is quickly repeated.
        if self._memory.due or (self._spent >= 1.0 and seconds > RARELY):
            self._save()

    def _save(self) -> None:
        why = self._memory.write(self._state(time.monotonic() - self._began))
        if why and not self._unsaved:
            self._case.progress.note(f"the training cannot be resumed after an interruption: {why}")
        self._unsaved = why

    def _step(self, rows: Sequence[Batch], rate: float) -> None:
        """Take a step of the optimizer.

        Raises:
            NonFiniteError: the loss is NaN or infinite.
        """
        model, whole, at_once = self._case.pruned.model, sum(map(self._terms, rows)), self._plan.at_once
        half = model.dtype in (torch.float16, torch.bfloat16)
        for part in join_rows(rows, at_once):
            with torch.autocast(model.device.type, model.dtype) if half else nullcontext():
                loss = self._loss(part)
            if not loss.isfinite():
                self._optimizer.zero_grad()
                raise NonFiniteError(f"the loss of step {self._steps} is {loss.item()}")
            self._scaler.scale(loss * (self._terms(part) / max(whole, 1))).backward()
        self._changing = True
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._learner.parameters, LARGEST_GRADIENT)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()

    def _check(self, seconds: float) -> None:
        try:
            distance = self._distance()
        except NonFiniteError as error:
            if not self._fixed:
                self._go_back(str(error))
            return
        check = Check(self._steps, self._tokens, seconds, self.rate, distance)
        self.outcome = Outcome(self.outcome.start, (*self.outcome.checks, check))
        if self._watch is not None:
            before = time.monotonic()
            self._watch(check)
            self._began += time.monotonic() - before
        if check is self.outcome.best:
            self._kept = [parameter.detach().clone() for parameter in self._learner.parameters]
        elif not self._fixed and self._spent < 1.0 and self.outcome.is_lost(self._planned - self._checked):
            self._go_back(distance.words(self.outcome.start))

    def _distance(self) -> Distance:
        with self._learner.settled():
            return self._case.distance()

    def _go_back(self, why: str) -> None:
        """Return to the best step so far, or to the start, and go on at a third of the rate."""
        self._changing = True
        best = self.outcome.best
        back = f"step {best.steps}" if best else "the start"
        self._case.progress.note(
            f"at the rate {self.rate:.1e}, after {self._steps} steps, {why}: back to {back}, and on at a third"
        )
        self.rate, self._since = self.rate * THIRD, self._spent
        self._put(self._kept)
        self._renew()

    def _try_rates(self, seconds: float, tokens: int) -> bool:
        """Choose the rate by short trials from the start, if a tenth of the training has room for them.

        The middle rate stays if no trial comes nearer: a few steps at any rate may cost what a long training brings
        back.

        Args:
            seconds: The time of a step.
            tokens: The tokens of a step.

        Returns:
            Whether there was room.
        """
        whole = 1 / self._limits.spent(1, tokens, seconds)  # the steps of the training
        minutes = self._limits.minutes
        share = TRIALS / len(RATES) - (0.0 if minutes is None else self._judging / (60 * minutes))
        steps = int(share * whole)
        if steps < FEWEST:
            self._case.progress.note(
                f"the rate is {self.rate:.0e}: {FEWEST} steps at each of {len(RATES)} rates do not fit into a tenth of "
                "the training"
            )
            return False
        limits = Limits(steps, None, None if minutes is None else share * minutes)
        start = self.outcome.start
        tried = {rate: self._trial(rate, limits) for rate in RATES}
        nearer = {rate: end for rate, end in tried.items() if end is not None and end.relative_to(start) < 1}

        def order(rate: float) -> tuple[bool, float]:
            """A rate whose end could be kept comes first."""
            return not advances(nearer[rate], start), nearer[rate].relative_to(start)

        self.rate = min(nearer, key=order, default=self.rate)
        taken = self._steps + 1, self._tokens + tokens
        now = time.monotonic() - self._began
        self._since = self._limits.spent(*taken, now) - self._limits.spent(*taken, 0.0)  # trials count in time alone
        shares = {
            rate: f"{end.relative_to(start):.1%}" + ("" if advances(end, start) else " (one divergence is worse)")
            for rate, end in nearer.items()
        }
        words = ", ".join(f"{rate:.0e} {shares.get(rate, 'worse')}" for rate in RATES)
        self._case.progress.note(
            f"of the distance from the intact model, at most {steps} steps at each rate leave: {words}; the rate is "
            f"{self.rate:.0e}"
        )
        return True

    def _trial(self, rate: float, limits: Limits) -> Distance | None:
        """Return the distance at the end of a short training; None if it is not finite. Nothing else changes."""
        self._put(self._kept)
        self._renew()
        began = time.monotonic()
        try:
            for number, rows in enumerate(self._text.steps()):
                if (spent := limits.spent(number, 0, time.monotonic() - began)) >= 1:
                    break
                self._step(rows, rate * schedule(spent))
            return self._distance()
        except NonFiniteError:
            return None
        finally:
            self._put(self._kept)
            self._renew()

    def _renew(self) -> None:
        """Begin with a new optimizer, which knows nothing of earlier steps."""
        device, half = self._case.pruned.device.type, self._case.pruned.model.dtype is torch.float16
        self._optimizer = AdamW(self._learner.parameters, weight_decay=0.0, fused=True)
        self._scaler: Any = torch.amp.GradScaler(device, enabled=half)

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._learner.parameters, values, strict=True):
                parameter.copy_(value)

    def _state(self, seconds: float) -> State:
        """Return the state from which an interrupted training resumes."""
        checks = []
        for steps, tokens, since, rate, distance in self.outcome.checks:
            again = [] if distance.repeated is None else list(distance.repeated.totals)
            checks.append((steps, tokens, since, rate, list(distance.plain.totals), again))
        return State(
            plan=(self._plan.learns, self._plan.rows, self._plan.at_once),
            rate=self.rate,
            since=self._since,
            steps=self._steps,
            tokens=self._tokens,
            seconds=seconds,
            spent=self._spent,
            planned=self._planned,
            checked=self._checked,
            checks=checks,
            values=[parameter.detach() for parameter in self._learner.parameters],
            best_values=self._kept,
            optimizer=self._optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
        )


def schedule(spent: float, since: float = 0.0) -> float:
    """Return the learning rate as a share of its peak: a linear warm-up, and a cosine over the training.

    Args:
        spent: The share of the training that is over.
        since: The share that was over when the peak came into force.
    """
    rise = min(1.0, max(spent - since, 0.01) / WARM_UP)
    return rise * 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))
