"""Training by transformers' Trainer, within limits of steps, tokens and time; the step with the least loss is kept."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from layerimp.errors import NonFiniteError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

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


def train(case: Case, learner: Learner, loss: Loss, limits: Limits, config: DistillConfig, *, before: float) -> Outcome:
    """Train what learns; in the end it has the values of the best step. A loss that is no number ends the training.

    Args:
        case: The models and the text.
        learner: What learns.
        loss: What is to become small.
        limits: How long.
        config: The rate, the rows of a step, how often to check, and the seed.
        before: The held-out loss of the model as it is.
    """
    optimizer = AdamW(learner.parameters, lr=config.rate, weight_decay=0.0)
    course = _Course(case, learner, limits, config.checks, before)
    schedule = LambdaLR(optimizer, lambda _step: _rate(course.spent))
    device = case.pruned.device
    with _own_randomness(), TemporaryDirectory() as nowhere, case.progress.stage("distill", PERCENT) as advance:
        course.advance = advance
        settings = TrainingArguments(
            output_dir=nowhere,
            max_steps=ENDLESS,
            seed=config.seed,
            use_cpu=device.type == "cpu",
            bf16=case.pruned.model.dtype == torch.bfloat16,
            fp16=case.pruned.model.dtype == torch.float16,
            save_strategy="no",
            logging_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cache=getattr(case.pruned.config, "use_cache", False),
        )
        text = _Text(case.batches, case.further, config.rows, config.seed)
        try:
            _Teacher(case.pruned.model, settings, text, loss, course, (optimizer, schedule)).train()
        except NonFiniteError as error:
            case.progress.note(f"{error}; training ends there")
    course.take_best()
    return course.best


def _rate(spent: float) -> float:
    """The learning rate as a share of the greatest: it rises in a straight line, and falls as a cosine."""
    if spent < WARM_UP:
        return max(spent, 0.01) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(spent, 1.0)))


@dataclass
class _Text:
    """The text, a few rows at a time, again and again.

    First comes that of the calibration set, in another order each time, and then what is named besides.
    """

    batches: Sequence[Batch]
    further: Iterable[Batch]
    rows: int
    seed: int

    def __iter__(self) -> Iterator[Batch]:
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
    """What happens between steps: counting, checking the held-out loss, and ending in time."""

    case: Case
    learner: Learner
    limits: Limits
    checks: int
    before: float
    tokens: int = 0
    spent: float = 0.0
    best: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self.advance: Any = None
        self._began = time.monotonic()
        self._told = self._checked = 0
        self._least = self.before
        self._kept: list[Tensor] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_more: Any) -> None:
        """See how far it is, and measure the held-out loss if it is time."""
        self.spent = min(self.limits.spent(state.global_step, self.tokens, time.monotonic() - self._began), 1.0)
        percent = int(self.spent * PERCENT)
        self.advance(percent - self._told)
        self._told = percent
        due = int(self.spent * self.checks)
        if due > self._checked:
            self._checked = due
            self._check(state.global_step)
        control.should_training_stop = self.spent >= 1.0

    def _check(self, step: int) -> None:
        try:
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
        loss = self._loss(inputs)
        if not loss.isfinite():
            raise NonFiniteError(f"the loss of step {self.state.global_step} is {loss.item()}; a lower rate may help")
        self._course.tokens += int(inputs["attention_mask"].sum())
        return loss


@contextmanager
def _own_randomness() -> Iterator[None]:
    """The Trainer seeds the random generators of the process: they are given back as they were."""
    state, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numbers)
