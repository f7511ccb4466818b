"""Train with transformers' Trainer under limits on steps, tokens and time, and keep the step with the lowest loss."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainingArguments

from layerimp.errors import NonFiniteError
from layerimp_distill.course import PERCENT, Course, Limits, Outcome

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.healer import Case
    from layerimp.sweep import Batch
    from layerimp_distill.learning import Learner
    from layerimp_distill.losses import Loss
    from layerimp_distill.memory import Memory
    from layerimp_distill.options import DistillConfig

WARM_UP = 0.05
"""The share of the training during which the learning rate rises."""
ENDLESS = 10**9
"""More steps than any limit allows; the Trainer requires a number."""


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
        The held-out loss in the course of the training.
    """
    optimizer = AdamW(learner.parameters, lr=config.rate, weight_decay=0.0)
    course = Course(case, learner, limits, config.checks, before, optimizer, memory)
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
            case.progress.stage("distill", PERCENT, unit="%") as advance,
        ):
            course.advance = advance
            trainer = _Teacher(model, _settings(model, config, nowhere), text, loss, course, (optimizer, schedule))
            try:
                trainer.train()
            except NonFiniteError as error:
                case.progress.note(f"{error}; training ends there")
    course.take_best()
    return course.outcome


class _Settings(TrainingArguments):
    """The settings of a Trainer that works on one device, that of the model, rather than on the first GPU or on all."""

    place: torch.device | None = None

    @property
    def device(self) -> torch.device:
        """The device; read by the Trainer."""
        chosen: torch.device = super().device
        return self.place or chosen

    @property
    def n_gpu(self) -> int:
        """The number of GPUs; read by the Trainer."""
        count: int = super().n_gpu
        return min(count, 1)


def _settings(model: PreTrainedModel, config: DistillConfig, directory: str) -> TrainingArguments:
    """Return the Trainer's settings, with the model's device as the current one."""
    settings = _Settings(
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
    settings.place = model.device
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # what is made so far has set the first GPU
    return settings


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


class _Teacher(Trainer):
    """A Trainer that reads endless text and computes a loss from two models."""

    def __init__(
        self, model: Any, settings: TrainingArguments, text: _Text, loss: Loss, course: Course, optimizers: Any
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
    """Undo the Trainer's side effects.

    These are on the process's random generators and its current GPU, and on the model's modes, `forward` and
    configuration.
    """
    state, numbers = random.getstate(), np.random.get_state()
    modes, own = {module: module.training for module in model.modules()}, dict(vars(model))
    fields = dict(vars(model.config))
    place = torch.cuda.device(model.device) if model.device.type == "cuda" else nullcontext()
    with place, torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numbers)
            for module, mode in modes.items():
                module.training = mode
            for name in vars(model).keys() - own.keys():  # the wrapped forward, and flags
                del vars(model)[name]
            vars(model.config).clear()  # the Trainer sets use_cache, which not every configuration has
            vars(model.config).update(fields)
