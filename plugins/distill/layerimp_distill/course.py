"""The course of a training: its limits, its checks of the held-out loss, and the state from which it resumes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from layerimp.errors import NonFiniteError
from layerimp_distill.memory import RARELY, Check, Memory, State

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from layerimp.healer import Case
    from layerimp_distill.learning import Learner

PERCENT = 100


@dataclass(frozen=True)
class Limits:
    """The limits on a training; the first limit that is reached ends the training.

    Attributes:
        steps: The most training steps; None sets no limit.
        tokens: The most tokens read; None sets no limit.
        minutes: The longest training time, in minutes; None sets no limit.
    """

    steps: int | None
    tokens: int | None
    minutes: float | None

    def spent(self, steps: int, tokens: int, seconds: float) -> float:
        """Return the share of the training that is over."""
        pairs = ((steps, self.steps), (tokens, self.tokens), (seconds / 60, self.minutes))
        return max(used / limit for used, limit in pairs if limit is not None)


@dataclass(frozen=True)
class Outcome:
    """The result of a training.

    Attributes:
        before: The held-out loss before the training, in nats per prediction.
        checks: The measurements of the held-out loss, in their order.
    """

    before: float
    checks: tuple[Check, ...]

    @property
    def best(self) -> Check | None:
        """The check with the lowest loss; None if no check is below the loss before the training."""
        lower = [check for check in self.checks if check.loss < self.before]
        return min(lower, key=lambda check: check.loss, default=None)

    @property
    def peak(self) -> float:
        """The highest held-out loss, before the training or at a check."""
        return max([self.before, *(check.loss for check in self.checks)])


class Course(TrainerCallback):
    """A callback that counts steps, measures the held-out loss, saves the state, and stops at the limits.

    Args:
        case: The models and the text.
        learner: The parameters that are trained.
        limits: How long to train.
        checks: How often to measure the held-out loss.
        before: The held-out loss before the training.
        optimizer: The optimizer.
        memory: Where the state of the training is saved.

    Attributes:
        steps: The number of steps so far.
        tokens: The number of tokens so far; the trainer adds those of each step.
        spent: The share of the limits that is used up.
        outcome: The checks so far.
        advance: A function that is told how many per cent of the training a step was.
    """

    def __init__(
        self,
        case: Case,
        learner: Learner,
        limits: Limits,
        checks: int,
        before: float,
        optimizer: Optimizer,
        memory: Memory,
    ) -> None:
        self._case, self._learner, self._limits, self._checks = case, learner, limits, checks
        self._optimizer, self._memory = optimizer, memory
        self.steps = self.tokens = 0
        self.spent = 0.0
        self.outcome = Outcome(before, ())
        self.advance: Any = None
        self._began = time.monotonic()
        self._reported = self._checked = 0
        self._kept: list[Tensor] = []

    def resume(self) -> float | None:
        """Restore the saved state of an interrupted training, if there is one.

        Returns:
            The learning rate of the next step; None if there is no saved state.
        """
        kept = self._memory.read(self._learner.parameters)
        if kept is None:
            return None
        self.steps, self.tokens, self.spent, self._checked = kept.steps, kept.tokens, kept.spent, kept.checked
        self._began -= kept.seconds
        self.outcome = Outcome(self.outcome.before, tuple(Check(*check) for check in kept.checks))
        self._kept = kept.best_values
        with torch.no_grad():
            for parameter, value in zip(self._learner.parameters, kept.values, strict=True):
                parameter.copy_(value)
        self._optimizer.load_state_dict(kept.optimizer)
        rate = float(self._optimizer.param_groups[0]["lr"])
        for group in self._optimizer.param_groups:
            group["lr"] = group.pop("initial_lr")
        self._case.progress.note(f"goes on with the training that was interrupted after {self.steps} steps")
        return rate

    def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """Update the progress, measure the held-out loss if a check is due, and save the state from time to time."""
        self.steps += 1
        seconds = time.monotonic() - self._began
        self.spent = min(self._limits.spent(self.steps, self.tokens, seconds), 1.0)
        percent = int(self.spent * PERCENT)
        self.advance(percent - self._reported)
        self._reported = percent
        due = int(self.spent * self._checks)
        if due > self._checked:
            self._checked = due
            self._check(seconds)
        control.should_training_stop = self.spent >= 1.0
        # A finished training is saved too, in case a later stage of the command is interrupted, unless it was so short
        # that it is quickly repeated.
        if self._memory.due or (control.should_training_stop and seconds > RARELY):
            self._memory.write(self._state(seconds))

    def _state(self, seconds: float) -> State:
        """Return the state from which an interrupted training resumes."""
        return State(
            *(self.steps, self.tokens, seconds, self.spent, self._checked),
            checks=[(check.steps, check.tokens, check.seconds, check.loss) for check in self.outcome.checks],
            values=[parameter.detach() for parameter in self._learner.parameters],
            best_values=self._kept,
            optimizer=self._optimizer.state_dict(),
        )

    def _check(self, seconds: float) -> None:
        try:
            with self._learner.settled():
                check = Check(self.steps, self.tokens, seconds, self._case.loss().mean)
        except NonFiniteError:
            return
        self.outcome = Outcome(self.outcome.before, (*self.outcome.checks, check))
        if check is self.outcome.best:
            self._kept = [parameter.detach().clone() for parameter in self._learner.parameters]

    def take_best(self) -> None:
        """Restore the parameters of the best step."""
        with torch.no_grad():
            for parameter, value in zip(self._learner.parameters, self._kept, strict=False):
                parameter.copy_(value)
