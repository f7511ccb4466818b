"""Train with transformers' Trainer under limits on steps, tokens and time, and keep the step with the lowest loss."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from layerimp.errors import NonFiniteError, OptionError
from layerimp_distill.memory import RARELY, Memory, State

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from layerimp.healer import Case
    from layerimp.sweep import Batch
    from layerimp_distill.learning import Learner
    from layerimp_distill.losses import Loss
    from layerimp_distill.options import DistillConfig

WARM_UP = 0.05
"""The share of the training during which the learning rate rises."""
ENDLESS = 10**9
"""More steps than any limit allows; the Trainer requires a number."""
PERCENT = 100


@dataclass(frozen=True)
class Limits:
    """The limits on a training; the first limit that is reached ends the training.

    Attributes:
        steps: The most training steps; None sets no limit.
        tokens: The most tokens read; None sets no limit.
        minutes: The longest training time, in minutes; None sets no limit.

    Raises:
        OptionError: no limit is given.
    """

    steps: int | None
    tokens: int | None
    minutes: float | None

    def __post_init__(self) -> None:
        if self.steps is None and self.tokens is None and self.minutes is None:
            raise OptionError("distill needs a limit: minutes, steps or tokens")

    def spent(self, steps: int, tokens: int, seconds: float) -> float:
        """Return the share of the training that is over."""
        pairs = ((steps, self.steps), (tokens, self.tokens), (seconds / 60, self.minutes))
        return max(used / limit for used, limit in pairs if limit is not None)


@dataclass
class Outcome:
    """The result of a training.

    Attributes:
        steps: The number of steps up to and including the best one.
        tokens: The number of tokens read up to the best step.
        improved: Whether any step lowered the held-out loss.
    """

    steps: int = 0
    tokens: int = 0
    improved: bool = False


def train(
    case: Case, learner: Learner, loss: Loss, limits: Limits, config: DistillConfig, memory: Memory, *, before: float
) -> Outcome:
    """Train the learner's parameters, and leave them at the values of the best step.

    A loss that is NaN or infinite ends the training. An interrupted training resumes from its last saved state. If only
    steps or tokens are limited, the result is the same as without the interruption.

    Args:
        case: The models and the text.
        learner: The parameters to train.
        loss: The training loss.
        limits: How long to train.
        config: The learning rate, the rows per step, the number of checks, and the seed.
        memory: Where the state of the training is saved.
        before: The held-out loss of the pruned model before training.

    Returns:
        How far the best step was, and whether it lowered the held-out loss.
    """
    optimizer = AdamW(learner.parameters, lr=config.rate, weight_decay=0.0)
    course = _Course(case, learner, limits, config.checks, before, optimizer, memory)
    rate = course.resume()
    schedule = LambdaLR(optimizer, lambda _step: _rate(course.spent))
    if rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = rate
    text = _Text(case.batches, case.further, config.rows, config.seed, course.steps)
    if course.spent < 1.0:
        model = case.pruned.model
        with (
            _left_as_it_was(model),
            TemporaryDirectory() as nowhere,
            case.progress.stage("distill", PERCENT) as advance,
        ):
            course.advance = advance
            trainer = _Teacher(model, _settings(model, config, nowhere), text, loss, course, (optimizer, schedule))
            try:
                trainer.train()
            except NonFiniteError as error:
                case.progress.note(f"{error}; training ends there")
    course.take_best()
    return course.best


def _settings(model: PreTrainedModel, config: DistillConfig, directory: str) -> TrainingArguments:
    """Return the Trainer's settings."""
    return TrainingArguments(
        output_dir=directory,
        max_steps=ENDLESS,
        seed=config.seed,
        use_cpu=model.device.type == "cpu",
        bf16=model.dtype == torch.bfloat16,
        fp16=model.dtype == torch.float16,
        save_strategy="no",
        logging_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cache=getattr(model.config, "use_cache", False),
    )


def _rate(spent: float) -> float:
    """Return the learning rate as a share of its maximum: a linear warm-up, then a cosine decay."""
    if spent < WARM_UP:
        return max(spent, 0.01) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))


@dataclass
class _Text:
    """An endless iterator over the training text, a few rows at a time.

    Each round reads the calibration set, shuffled anew, and then the further text.

    Attributes:
        batches: The calibration set.
        further: Further training text.
        rows: The most rows per step.
        seed: Seed of the order of the calibration set.
        skipped: The number of steps to skip, because they were taken before an interruption.
    """

    batches: Sequence[Batch]
    further: Iterable[Batch]
    rows: int
    seed: int
    skipped: int = 0

    def __iter__(self) -> Iterator[Batch]:
        return islice(self._all(), self.skipped, None)

    def _all(self) -> Iterator[Batch]:
        own = list(self._parts(self.batches))
        order = random.Random(self.seed)
        while True:
            order.shuffle(own)
            yield from own
            yield from self._parts(self.further)

    def _parts(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            for start in range(0, len(batch["input_ids"]), self.rows):
                yield {name: value[start : start + self.rows] for name, value in batch.items()}


@dataclass
class _Course(TrainerCallback):
    """A callback that counts steps, measures the held-out loss, saves the state, and stops at the limits."""

    case: Case
    learner: Learner
    limits: Limits
    checks: int
    before: float
    optimizer: Optimizer
    memory: Memory
    tokens: int = 0
    steps: int = 0
    spent: float = 0.0
    best: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self.advance: Any = None
        self._began = time.monotonic()
        self._told = self._checked = 0
        self._least = self.before
        self._kept: list[Tensor] = []

    def resume(self) -> float | None:
        """Restore the saved state of an interrupted training, if there is one.

        Returns:
            The learning rate of the next step; None if there is no saved state.
        """
        kept = self.memory.read(self.learner.parameters)
        if kept is None:
            return None
        self.steps, self.tokens, self.spent, self._checked = kept.steps, kept.tokens, kept.spent, kept.checked
        self._began -= kept.seconds
        self._least, self.best, self._kept = kept.least, Outcome(*kept.best), kept.best_values
        with torch.no_grad():
            for parameter, value in zip(self.learner.parameters, kept.values, strict=True):
                parameter.copy_(value)
        self.optimizer.load_state_dict(kept.optimizer)
        rate = float(self.optimizer.param_groups[0]["lr"])
        for group in self.optimizer.param_groups:
            group["lr"] = group.pop("initial_lr")
        self.case.progress.note(f"goes on with the training that was interrupted after {self.steps} steps")
        return rate

    def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """Update the progress, measure the held-out loss if a check is due, and save the state from time to time."""
        self.steps += 1
        seconds = time.monotonic() - self._began
        self.spent = min(self.limits.spent(self.steps, self.tokens, seconds), 1.0)
        percent = int(self.spent * PERCENT)
        self.advance(percent - self._told)
        self._told = percent
        due = int(self.spent * self.checks)
        if due > self._checked:
            self._checked = due
            self._check(self.steps)
        control.should_training_stop = self.spent >= 1.0
        # A finished training is saved too, in case a later stage of the command is interrupted, unless it was so short
        # that it is quickly repeated.
        if self.memory.due or (control.should_training_stop and seconds > RARELY):
            self.memory.write(self._state(seconds))

    def _state(self, seconds: float) -> State:
        """Return the state from which an interrupted training resumes."""
        return State(
            *(self.steps, self.tokens, seconds, self.spent, self._checked, self._least),
            best=(self.best.steps, self.best.tokens, self.best.improved),
            values=[parameter.detach() for parameter in self.learner.parameters],
            best_values=self._kept,
            optimizer=self.optimizer.state_dict(),
        )

    def _check(self, step: int) -> None:
        try:
            with self.learner.settled():
                found = self.case.loss().mean
        except NonFiniteError:
            return
        if found < self._least:
            self._least, self.best = found, Outcome(step, self.tokens, improved=True)
            self._kept = [parameter.detach().clone() for parameter in self.learner.parameters]

    def take_best(self) -> None:
        """Restore the parameters of the best step."""
        with torch.no_grad():
            for parameter, value in zip(self.learner.parameters, self._kept, strict=False):
                parameter.copy_(value)


class _Teacher(Trainer):
    """A Trainer that reads endless text and computes a loss from two models."""

    def __init__(
        self, model: Any, settings: TrainingArguments, text: _Text, loss: Loss, course: _Course, optimizers: Any
    ) -> None:
        super().__init__(model, settings, callbacks=[course], optimizers=optimizers)
        self.remove_callback(PrinterCallback)
        self._text, self._loss, self._course = text, loss, course

    def get_train_dataloader(self) -> Any:
        """Return the training text; called by the Trainer."""
        return self._text

    def compute_loss(self, model: Any, inputs: Any, *_args: Any, **_kwargs: Any) -> Any:
        """Return the loss of a step; called by the Trainer.

        Raises:
            NonFiniteError: the loss is NaN or infinite.
        """
        with self.accelerator.autocast():
            loss = self._loss(inputs)
        if not loss.isfinite():
            raise NonFiniteError(f"the loss of step {self._course.steps} is {loss.item()}; a lower rate may help")
        self._course.tokens += int(inputs["attention_mask"].sum())
        return loss


@contextmanager
def _left_as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """Undo the Trainer's side effects: on the process's random generators, and on the model's modes and `forward`."""
    state, numbers = random.getstate(), np.random.get_state()
    modes, own = {module: module.training for module in model.modules()}, dict(vars(model))
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numbers)
            for module, mode in modes.items():
                module.training = mode
            for name in vars(model).keys() - own.keys():  # the wrapped forward, and flags
                del vars(model)[name]
