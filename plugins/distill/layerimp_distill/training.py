"""Train under limits on steps, tokens and time, and keep the step that is nearest to the intact model."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from layerimp.errors import NonFiniteError
from layerimp.fidelity import Distance, Loss
from layerimp.models import special_ids
from layerimp_distill.course import CHECKING, Check, Limits, Outcome
from layerimp_distill.descent import Descent, Task, first_rate, schedule
from layerimp_distill.memory import RARELY, Memory, State
from layerimp_distill.text import Text, tokens_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from layerimp.sweep import Batch

PERCENT = 100
THIRD = 1 / 3
LOWEST = 1e-7
"""A rate at which a model still gets worse, and below which training ends."""


class Training:
    """A training, which goes from step to step, and back where the model gets worse.

    The rate is `first_rate` at first, and a third of it each time that training goes back. A loss or a distance that is
    NaN or infinite counts as worse. A rate that the user names stays; then only the best step is kept, and a loss that
    is not finite ends the training.

    An interrupted training resumes from its last saved state. If steps or tokens end the training, the result is the
    same as without the interruption.

    Args:
        task: What is trained, and how.
        memory: Where the state is saved.
        outcome: The distances before the training.
        seconds: How long it takes to measure one.
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
        outcome: Outcome,
        seconds: float,
        watch: Callable[[Check], None] | None = None,
        before: float = 0.0,
    ) -> None:
        config = task.config
        self._case, self._plan = task.case, task.plan
        self._descent = Descent(task)
        self._memory, self._watch = memory, watch
        self._config, self._seconds, self._before = config, seconds, before
        # Other time is no progress: another rate would follow from it, also where steps or tokens end the training.
        self._limits, self._fixed = Limits.of(config, seconds, before), config.rate is not None
        self._text = Text(task.case.batches, task.case.further, task.plan.rows, config.seed)
        if outcome.start.repeated is not None:  # a language model
            special = special_ids(task.case.pruned.model)
            self._text = replace(self._text, repeated=config.repeated, special=special)
        self.outcome, self.rate = outcome, config.rate or first_rate(task.learner.values)
        self._steps = self._tokens = self._checked = 0
        self._spent = self._since = 0.0
        self._unsaved = ""  # why the last state was not saved
        self._planned = config.checks
        if config.minutes is not None:
            self._planned = min(config.checks, max(2, int(CHECKING * 60 * config.minutes / max(seconds, 1e-9))))
        self._began = time.monotonic()

    def resume(self, state: State) -> None:
        """Go on from the saved state of an interrupted training."""
        self.rate, self._since, self._spent = state.rate, state.since, state.spent
        self._steps, self._tokens = state.steps, state.tokens
        self._planned, self._checked = state.planned, state.checked
        self._limits = Limits.of(self._config, self._seconds, self._before, state.seconds)
        self._began = time.monotonic() - state.seconds
        start = self.outcome.start
        checks = []
        for steps, tokens, seconds, rate, plain, repeated in state.checks:
            again = start.repeated and Loss(repeated, start.repeated.counts)
            distance = Distance(Loss(plain, start.plain.counts), again)
            checks.append(Check(steps, tokens, seconds, rate, distance))
        self.outcome = replace(self.outcome, checks=tuple(checks))
        self._descent.resume(state)
        counted = f"{state.steps} step" + "s" * (state.steps != 1)
        self._case.progress.note(f"goes on with the training that was interrupted after {counted}")

    def run(self) -> None:
        """Train, and leave the parameters at the values of the best step.

        An interruption between two steps saves the state.
        """
        try:
            self._run()
        except KeyboardInterrupt:
            if self._steps and not self._descent.unsettled:
                self._save()
            raise
        self._descent.put(self._descent.kept)

    def _run(self) -> None:
        with self._case.progress.stage("distill", PERCENT, unit="%") as advance:
            reported = 0
            for rows in self._steps_left():
                if self._spent >= 1.0 or self.rate < LOWEST:
                    break
                try:
                    self._descent.step(rows, self.rate * schedule(self._spent, self._since))
                except NonFiniteError as error:
                    if self._fixed:
                        self._case.progress.note(
                            f"at step {self._steps} {error}; training ends there; a lower rate may help"
                        )
                        break
                    self._go_back(str(error))
                self._steps += 1
                self._tokens += sum(map(tokens_in, rows))
                self._account()
                self._descent.unsettled = False
                advance(int(self._spent * PERCENT) - reported)
                reported = int(self._spent * PERCENT)

    def _steps_left(self) -> Iterator[list[Batch]]:
        """Yield the rows of the steps that are left. To read again what was trained on takes none of this run's time.

        A finished training reads it too: a further text notes what was read of it.
        """
        before, steps = time.monotonic(), self._text.steps(self._steps)
        try:
            first = next(steps)
        finally:
            self._began += time.monotonic() - before if self._steps else 0.0
        yield from chain([first], steps)

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

    def _check(self, seconds: float) -> None:
        try:
            distance = self._descent.distance()
        except NonFiniteError as error:
            if not self._fixed:
                self._go_back(str(error))
            return
        check = Check(self._steps, self._tokens, seconds, self.rate, distance)
        self.outcome = replace(self.outcome, checks=(*self.outcome.checks, check))
        if self._watch is not None:
            before = time.monotonic()
            self._watch(check)
            self._began += time.monotonic() - before
        if check is self.outcome.best:
            self._descent.keep()
        elif not self._fixed and self._spent < 1.0 and self.outcome.is_lost(self._planned - self._checked):
            self._go_back(distance.words(self.outcome.start))

    def _go_back(self, why: str) -> None:
        """Return to the best step so far, or to the start, and go on at a third of the rate."""
        best = self.outcome.best
        back = f"step {best.steps}" if best else "the start"
        self._case.progress.note(
            f"at the rate {self.rate:.1e}, after {self._steps} steps, {why}: back to {back}, and on at a third"
        )
        self._descent.go_back()
        self.rate, self._since = self.rate * THIRD, self._spent

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
            **self._descent.state(),
        )
