"""Log-likelihoods of continuations under a decoder, without unused logits or repeated contexts.

Rows with a common beginning, such as the options of a question, run as one tree, in which each token is computed once.
Not every model gives the same answers in this way. So the answers of a few trees, including the longest and the
shortest, are compared with those of whole rows. If the answers differ, every row runs as a whole.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from layerimp_harness.batches import logits_bytes
from layerimp_harness.rows import rows_of
from layerimp_harness.trees import Forest, Tree, trees_of

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
        self._forest = Forest(model)

    def answer(self, requests: Sequence[TokenRequest], done: Done, *, sharing: bool, greedy: bool) -> None:
        """Answer every request.

        Args:
            requests: Each with a context, and a continuation of 1 to `max_length` tokens.
            done: Called with each request's number and log-likelihood, and whether its continuation is greedy.
            sharing: Whether to look for rows with a common beginning.
            greedy: Whether to find out which continuations are greedy; otherwise every continuation is reported as not
                greedy.

        Raises:
            TaskError: not even one row fits into memory.
        """

        def tell(answers: Answers) -> None:
            for number, answer in answers.items():
                done(number, answer.total, answer.greedy)

        rows = rows_of(requests, self._max_length)
        trees: list[Tree] = []
        if sharing and self._forest.possible:
            made = trees_of(rows, self._max_length)
            trees = [tree for tree in made if len(tree.rows) > 1]
            rows = [tree.rows[0] for tree in made if len(tree.rows) == 1]
        if trees:
            chosen = _telling(trees)
            tried = self._tried(chosen, greedy)
            if tried is None:
                rows = sorted([*rows, *(row for tree in trees for row in tree.rows)], key=lambda row: -len(row.tokens))
                trees = []
            else:
                tell(tried)
                trees = [tree for tree in trees if not any(tree is other for other in chosen)]
        self._run_trees(trees, tell, greedy)
        self._run_rows(rows, tell, greedy)

    def _run_rows(self, rows: Sequence[Row], tell: Callable[[Answers], None], greedy: bool) -> None:
        """Answer the requests of the rows, with every row in one piece."""

        def call(batch: Sequence[Row]) -> None:
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
                answers |= self._read(row, own[row.start - first :], greedy)
            tell(answers)

        sizes = {id(row): self._bytes(positions) for row, positions in zip(rows, self._positions(rows), strict=True)}
        self._batches.run(rows, call, lambda row: sizes[id(row)], lambda row: len(row.tokens))

    def _positions(self, rows: Sequence[Row]) -> list[int]:
        """Return, for each row, the number of positions with logits in a batch that begins with the row."""
        if not self._forest.slices:
            return [len(row.tokens) for row in rows]
        starts = [row.start for row in rows]
        most = self._batches.most
        return [len(row.tokens) - min(starts[number : number + most]) for number, row in enumerate(rows)]

    def _run_trees(
        self, trees: Sequence[Tree], tell: Callable[[Answers], None], greedy: bool, *, mixed: bool = False
    ) -> None:
        """Answer the requests of the trees, with each token computed once; `mixed`: whatever padding that takes."""

        def call(batch: Sequence[Tree]) -> None:
            answers: Answers = {}
            for row, logits, places in self._forest.logits(batch):
                answers |= self._read(row, logits, greedy, places)
            tell(answers)

        most = max((len(tree.tokens) - tree.start for tree in trees), default=0)

        def size(tree: Tree) -> int:
            tokens = len(tree.tokens)
            return self._bytes(most if self._forest.slices else tokens) + tokens**2 * self._model.dtype.itemsize

        self._batches.run(trees, call, size, None if mixed else lambda tree: len(tree.tokens))

    def _tried(self, trees: list[Tree], greedy: bool) -> Answers | None:
        """Return the answers of a few trees, or None if those of whole rows differ."""
        shared: Answers = {}
        whole: Answers = {}
        try:
            self._run_trees(trees, shared.update, greedy, mixed=True)
        except Exception:  # the model does not take a tree; any other error occurs again without one
            return None
        rows = [*(max(tree.rows, key=lambda row: len(row.tokens)) for tree in trees), trees[-1].rows[-1]]
        rows = list({id(row): row for row in rows}.values())
        self._run_rows(sorted(rows, key=lambda row: -len(row.tokens)), whole.update, greedy)
        tolerance = _TOLERANCES.get(self._model.dtype, _SIXTEEN_BITS)
        alike = all(
            torch.allclose(answer.log_probs, shared[number].log_probs, rtol=0, atol=tolerance)
            for number, answer in whole.items()
        )
        return shared if alike else None

    def _read(self, row: Row, logits: Tensor, greedy: bool, places: Tensor | None = None) -> Answers:
        """Return the answers to the requests of a row.

        Args:
            row: The row.
            logits: Logits, those of the row from its start on [position, vocab].
            greedy: Whether to find out which continuations are greedy.
            places: The places of the row's logits from its start on, among others; None if they are the first ones.
        """
        answers: Answers = {}
        for reader in row.readers:
            wanted = torch.tensor(reader.continuation, device=logits.device)
            span = slice(reader.start - row.start, reader.start - row.start + len(wanted))
            own = logits[span] if places is None else logits[places[span]]
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


def _telling(trees: list[Tree]) -> list[Tree]:
    """Return the trees that test whether a tree gives the right answers on this model, the longest first.

    The deepest one would reveal an error from a sliding window. The smallest one is padded beside it, which would
    reveal an error from padding.
    """
    return list({id(tree): tree for tree in (max(trees, key=lambda tree: tree.depth), trees[0], trees[-1])}.values())
