"""Log-likelihoods of continuations under a decoder, without unused logits or repeated contexts.

Requests that share a context, such as the options of a question, are answered with one forward over the context, which
fills a key-value cache, and one over the continuations. Not every model gives the same answers in this way. So the
answers for a few groups, including the longest and the shortest context, are compared with those of whole rows. If the
answers differ, every row runs as a whole.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from layerimp_harness.batches import logits_bytes
from layerimp_harness.contexts import Contexts
from layerimp_harness.rows import Group, grouped, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp_harness.batches import Batches
    from layerimp_harness.rows import Row, TokenRequest

_AT_ONCE = 2**22  # the number of logits normalised at the same time, few enough to stay in the processor's cache

_TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-3}
_SIXTEEN_BITS = 0.25  # two neighbouring logits between 16 and 32 differ by an eighth in bfloat16


@dataclass(frozen=True)
class Answer:
    """A model's answer to a request.

    Attributes:
        log_probs: The log-probability of each token of the continuation [token].
        greedy: Whether every token of the continuation is the most probable one.
    """

    log_probs: Tensor
    greedy: bool

    @property
    def total(self) -> float:
        """The log-likelihood of the continuation."""
        return float(self.log_probs.double().sum())


Answers = dict[int, Answer]
"""Answers by the number of the request."""
Done: TypeAlias = "Callable[[int, float, bool], None]"
"""Takes the number of a request, its log-likelihood, and whether its continuation is greedy."""


class Likelihoods:
    """Answers requests with one model.

    Args:
        model: A decoder-only model, in evaluation mode.
        batches: Splits rows into batches.
        max_length: The maximum number of tokens in a row.
        vocabulary: The number of logits at each position.
    """

    def __init__(self, model: PreTrainedModel, batches: Batches, *, max_length: int, vocabulary: int) -> None:
        self._model = model
        self._batches = batches
        self._max_length = max_length
        self._vocabulary = vocabulary
        self._accepted = inspect.signature(model.forward).parameters
        # In 16 bits the sum over a window is off by up to 0.4 %, and a perplexity by more.
        self._softmax_dtype = torch.float32 if model.dtype.itemsize < 4 else None
        self._contexts = Contexts(model, max_length)
        self._shares: bool | None = None

    def answer(self, requests: Sequence[TokenRequest], done: Done, *, sharing: bool, greedy: bool) -> None:
        """Answer every request.

        Args:
            requests: Each with a context, and a continuation of 1 to `max_length` tokens.
            done: Called with each request's number and log-likelihood, and whether its continuation is greedy.
            sharing: Whether to look for requests with the same context.
            greedy: Whether to find out which continuations are greedy; otherwise every continuation is reported as not
                greedy.

        Raises:
            TaskError: not even one row fits into memory.
        """

        def tell(answers: Answers) -> None:
            for number, answer in answers.items():
                done(number, answer.total, answer.greedy)

        rows = rows_of(requests, self._max_length)
        groups: list[Group] = []
        if sharing and self._shares is not False and self._contexts.possible:
            groups, rows = grouped(rows)
        if groups and self._shares is None:
            chosen = self._telling(groups)
            tried = self._tried(chosen, greedy)
            self._shares = tried is not None
            if tried is not None:
                tell(tried)
                groups = [group for group in groups if not any(group is other for other in chosen)]
        if groups and not self._shares:
            rows = sorted([*rows, *(row for group in groups for row in group.rows)], key=lambda row: -len(row.tokens))
            groups = []
        self._run_groups(groups, tell, greedy)
        self._run_rows(rows, tell, greedy)

    def _telling(self, groups: list[Group]) -> list[Group]:
        """Return the groups that test whether sharing gives the right answers on this model, longest context first.

        The longest context would reveal an error from a sliding window. The shortest context, together with the longest
        one that fits into the same forward, would reveal an error from padding.
        """
        shortest = groups[-1]

        def fits(group: Group) -> bool:
            return len(group.context) + max(group.width, shortest.width) <= self._max_length

        beside = next((group for group in groups[:-1] if fits(group)), None)
        return list({id(group): group for group in (groups[0], beside, shortest) if group is not None}.values())

    def _run_rows(self, rows: Sequence[Row], tell: Callable[[Answers], None], greedy: bool) -> None:
        """Answer the requests of the rows, with every row in one piece."""

        def call(batch: Sequence[Row], _rows: int) -> None:
            length = max(len(row.tokens) for row in batch)
            ids = torch.zeros(len(batch), length, dtype=torch.long)  # padding on the right, which no token attends to
            for number, row in enumerate(batch):
                ids[number, : len(row.tokens)] = torch.tensor(row.tokens)
            options = {"use_cache": False, "logits_to_keep": length - min(row.start for row in batch)}
            given = {name: value for name, value in options.items() if name in self._accepted}
            with torch.no_grad():  # inference_mode could leave tensors in the model that block gradients later
                logits = self._model(ids.to(self._model.device), **given).logits  # [row, position, vocab]
            first = length - logits.shape[1]
            answers: Answers = {}
            for row, own in zip(batch, logits, strict=True):
                answers |= self._read(row, own, first, greedy)
            tell(answers)

        sizes = {id(row): self._bytes(positions) for row, positions in zip(rows, self._positions(rows), strict=True)}
        self._batches.run(rows, call, lambda row: sizes[id(row)])

    def _positions(self, rows: Sequence[Row]) -> list[int]:
        """Return, for each row, the number of positions with logits in a batch that begins with the row."""
        if "logits_to_keep" not in self._accepted:
            return [len(row.tokens) for row in rows]
        starts = [row.start for row in rows]
        most = self._batches.most
        return [len(row.tokens) - min(starts[number : number + most]) for number, row in enumerate(rows)]

    def _run_groups(self, groups: Sequence[Group], tell: Callable[[Answers], None], greedy: bool) -> None:
        """Answer the requests of the groups: per batch, one forward for the contexts and more for the continuations."""

        def call(batch: Sequence[Group], rows: int) -> None:
            answers: Answers = {}
            for group, row, logits in self._contexts.logits(batch, rows):
                answers |= self._read(row, logits, len(group.context) - 1, greedy)
            tell(answers)

        widest = max((group.width for group in groups), default=0)

        def size(group: Group) -> int:
            positions = widest + 1 + ("logits_to_keep" not in self._accepted) * len(group.context)
            return self._bytes(positions) + self._contexts.bytes_of(group)

        self._batches.run(groups, call, size)

    def _tried(self, groups: list[Group], greedy: bool) -> Answers | None:
        """Return the answers of a few groups with shared contexts, or None if those of whole rows differ."""
        shared: Answers = {}
        whole: Answers = {}
        try:
            self._run_groups(groups, shared.update, greedy)
        except Exception:  # the model fails with a cache; any other error occurs again without one
            return None
        rows = [*(group.rows[0] for group in groups), groups[-1].rows[-1]]
        self._run_rows(sorted(rows, key=lambda row: -len(row.tokens)), whole.update, greedy)
        tolerance = _TOLERANCES.get(self._model.dtype, _SIXTEEN_BITS)
        alike = all(
            torch.allclose(answer.log_probs, shared[number].log_probs, rtol=0, atol=tolerance)
            for number, answer in whole.items()
        )
        return shared if alike else None

    def _read(self, row: Row, logits: Tensor, first: int, greedy: bool) -> Answers:
        """Return the answers to the requests of a row.

        Args:
            row: The row.
            logits: The row's logits [position, vocab].
            first: The position in the row of the first logits.
            greedy: Whether to find out which continuations are greedy.
        """
        answers: Answers = {}
        for reader in row.readers:
            wanted = torch.tensor(reader.continuation, device=logits.device)
            own = logits[reader.start - first :][: len(wanted)]
            log_probs_of_tokens: list[Tensor] = []
            best = greedy
            step = max(1, _AT_ONCE // own.shape[-1])
            for some, tokens in zip(own.split(step), wanted.split(step), strict=True):
                log_probs = some.log_softmax(-1, dtype=self._softmax_dtype)
                log_probs_of_tokens.append(log_probs.gather(-1, tokens[:, None])[:, 0])
                best = best and bool((log_probs.argmax(-1) == tokens).all())
            answers[reader.request] = Answer(torch.cat(log_probs_of_tokens).cpu(), best)
        return answers

    def _bytes(self, positions: int) -> int:
        return logits_bytes(positions, self._vocabulary)
