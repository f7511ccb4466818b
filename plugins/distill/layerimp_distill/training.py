"""Training by transformers' Trainer, within limits of steps, tokens and time; the step with the least loss is kept."""

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
"""The share of the training in which the learning rate rises."""
ENDLESS = 10**9
"""Steps that no limit ever lets happen; the Trainer wants a number."""
PERCENT = 100


@dataclass(frozen=True)
class Limits:
    """How long to train; the limit that is reached first counts.

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
        """The share of the training that is over."""
        pairs = ((steps, self.steps), (tokens, self.tokens), (seconds / 60, self.minutes))
        return max(used / limit for used, limit in pairs if limit is not None)


@dataclass
class Outcome:
    """How training went.

    Attributes:
        steps: How many steps were taken up to the best one.
        tokens: How many tokens were read up to there.
        improved: Whether any step was better than none.
    """

    steps: int = 0
    tokens: int = 0
    improved: bool = False


def train(
    case: Case, learner: Learner, loss: Loss, limits: Limits, config: DistillConfig, memory: Memory, *, before: float
) -> Outcome:
    """Train what learns; in the end it has the values of the best step. A loss that is no number ends the training.

    A training that was interrupted goes on where its state was last kept. Within limits of steps or tokens it comes to
    what it would have come to without the interruption.

    Args:
        case: The models and the text.
        learner: What learns.
        loss: What is to become small.
        limits: How long.
        config: The rate, the rows of a step, how often to check, and the seed.
        memory: Where the state is kept.
        before: The held-out loss of the model as it is.
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
    """What the Trainer is told."""
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
    """The learning rate as a share of the greatest: it rises in a straight line, and falls as a cosine."""
    if spent < WARM_UP:
        return max(spent, 0.01) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))


@dataclass
class _Text:
    """The text, a few rows at a time, again and again.

    First comes that of the calibration set, in another order each time, and then what is named besides. The first
    `skipped` steps' text is left out, as read before an interruption.
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
    """What happens between steps: counting, checking the held-out loss, keeping the state, and ending in time."""

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
        """Go on from what an interrupted training has kept, if anything; gives the learning rate of its next step."""
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
        """See how far it is, measure the held-out loss if it is time, and keep the state now and then."""
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
        # What is finished is kept too, for what comes after it in the command; but for what is soon done again.
        if self.memory.due or (control.should_training_stop and seconds > RARELY):
            self.memory.write(self._state(seconds))

    def _state(self, seconds: float) -> State:
        """What an interrupted training goes on from."""
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
        """Go back to the best step."""
        with torch.no_grad():
            for parameter, value in zip(self.learner.parameters, self._kept, strict=False):
                parameter.copy_(value)


class _Teacher(Trainer):
    """The Trainer, with text that never ends and a loss of two models."""

    def __init__(
        self, model: Any, settings: TrainingArguments, text: _Text, loss: Loss, course: _Course, optimizers: Any
    ) -> None:
        super().__init__(model, settings, callbacks=[course], optimizers=optimizers)
        self.remove_callback(PrinterCallback)
        self._text, self._loss, self._course = text, loss, course

    def get_train_dataloader(self) -> Any:
        """The text; the Trainer asks for it."""
        return self._text

    def compute_loss(self, model: Any, inputs: Any, *_args: Any, **_kwargs: Any) -> Any:
        """The loss of a step; the Trainer asks for it.

        Raises:
            NonFiniteError: the loss is a NaN or an infinity.
        """
        with self.accelerator.autocast():
            loss = self._loss(inputs)
        if not loss.isfinite():
            raise NonFiniteError(f"the loss of step {self._course.steps} is {loss.item()}; a lower rate may help")
        self._course.tokens += int(inputs["attention_mask"].sum())
        return loss


@contextmanager
def _left_as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """Give back what the Trainer changes: the random generators of the process, and the model's modes and `forward`."""
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
            for name in vars(model).keys() - own.keys():  # a wrapped forward, and flags
                del vars(model)[name]
