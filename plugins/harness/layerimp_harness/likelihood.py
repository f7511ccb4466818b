"""Log-likelihoods of continuations under a decoder, without unused logits or repeated contexts.

Rows with a common beginning, such as the options of a question, run as one tree, in which each token is computed once.
Not every model gives the same answers in this way. So the answers of one row of a tree are compared with those of the
whole row, and those of the longest row too if it may be longer than a window of the model. If any answer differs, every
row runs as a whole.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from layerimp.errors import ModelError
from layerimp.stats import working_dtype
from layerimp_harness.batches import logits_bytes
from layerimp_harness.forest import Forest
from layerimp_harness.rows import rows_of
from layerimp_harness.trees import Tree, trees_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from layerimp_harness.batches import Batches
    from layerimp_harness.rows import Reader, Row, TokenRequest

_PLACES, _LOGITS = 128, 2**24
"""So many places, or more if they have no more logits than this, have their logits at once. With fewer places, reading
the matrix of the head would take longer than multiplying by it."""
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
_Asked: TypeAlias = "tuple[Reader, Sequence[int]]"
"""A reader, and the places that predict the tokens of its continuation, among all of a batch."""
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
        trees = trees_of(rows, self._max_length) if sharing else []
        forest = self._forest() if any(len(tree.rows) > 1 for tree in trees) else None
        if forest is not None:
            chosen = [next(tree for tree in reversed(trees) if len(tree.rows) > 1)]  # the smallest one
            deepest = max(trees, key=lambda tree: tree.depth)
            if deepest is not chosen[0] and not forest.reaches(deepest.depth):
                chosen.append(deepest)
            tried = self._tried(forest, chosen, greedy)
            if tried is not None:
                tell(tried)
                self._run_trees(forest, [tree for tree in trees if tree not in chosen], tell, greedy)
                return
        self._run_rows(rows, tell, greedy)

    def _forest(self) -> Forest | None:
        """Return what runs trees, or None if the model cannot run any."""
        try:
            forest = Forest(self._model)
        except (ModelError, torch.OutOfMemoryError):  # memory that lacks for a few tokens is reported for whole rows
            return None
        return forest if forest.possible else None

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
            kept, flat = logits.shape[1], logits.flatten(0, 1)
            asked: list[_Asked] = []
            for number, row in enumerate(batch):
                first = number * kept + kept - length
                asked += [(reader, range(first + reader.start, first + reader.end)) for reader in row.readers]
            tell(self._read(asked, lambda places: _rows_at(flat, places), greedy))

        sizes = {id(row): self._bytes(positions) for row, positions in zip(rows, self._positions(rows), strict=True)}
        self._batches.run(rows, call, lambda row: sizes[id(row)], lambda row: len(row.tokens))

    def _positions(self, rows: Sequence[Row]) -> list[int]:
        """Return, for each row, the number of positions with logits in a batch that begins with the row."""
        if "logits_to_keep" not in self._accepted:
            return [len(row.tokens) for row in rows]
        starts = [row.start for row in rows]
        most = self._batches.most
        return [len(row.tokens) - min(starts[number : number + most]) for number, row in enumerate(rows)]

    def _run_trees(self, forest: Forest, trees: Sequence[Tree], tell: Callable[[Answers], None], greedy: bool) -> None:
        """Answer the requests of the trees, with each token computed once."""

        def call(batch: Sequence[Tree]) -> None:
            longest = max(len(tree.tokens) for tree in batch)
            asked: list[_Asked] = []
            for number, tree in enumerate(batch):
                for row, path in zip(tree.rows, tree.paths, strict=True):
                    places = [number * longest + place for place in path]
                    asked += [(reader, places[reader.start : reader.end]) for reader in row.readers]
            with torch.no_grad():
                tell(self._read(asked, forest.run(batch), greedy))

        def size(tree: Tree) -> int:
            return len(tree.tokens) ** 2 * self._model.dtype.itemsize

        self._batches.run(trees, call, size, lambda tree: len(tree.tokens))

    def _tried(self, forest: Forest, trees: Sequence[Tree], greedy: bool) -> Answers | None:
        """Return the answers of some trees, or None if those of whole rows differ.

        Compared are the last row of the first tree, which does not lie in one piece, and the longest row of the second,
        if there is one.
        """
        shared: Answers = {}
        whole: Answers = {}
        try:
            self._run_trees(forest, trees, shared.update, greedy)
        except Exception:  # the model does not take a tree; any other error occurs again without one
            return None
        rows = [trees[0].rows[-1], *(max(tree.rows, key=lambda row: len(row.tokens)) for tree in trees[1:])]
        self._run_rows(rows, whole.update, greedy)
        tolerance = _TOLERANCES.get(self._model.dtype, _SIXTEEN_BITS)
        alike = all(
            torch.allclose(answer.log_probs, shared[number].log_probs, rtol=0, atol=tolerance)
            for number, answer in whole.items()
        )
        return shared if alike else None

    def _read(self, asked: Sequence[_Asked], logits_of: Callable[[Tensor], Tensor], greedy: bool) -> Answers:
        """Return the answers to some requests.

        Args:
            asked: Readers, each with the places that predict the tokens of its continuation.
            logits_of: Returns the logits of places [place, vocab].
            greedy: Whether to find out which continuations are greedy.
        """
        dtype = working_dtype(self._model.dtype)  # in 16 bits the sum over a window would be off by up to 0.4 %
        tokens = torch.tensor([token for reader, _ in asked for token in reader.continuation])
        places, rows = torch.tensor([place for _, own in asked for place in own]).unique(return_inverse=True)
        log_probs, best = torch.zeros(len(tokens), dtype=dtype), torch.zeros(len(tokens), dtype=torch.bool)
        first = 0
        most = max(_PLACES, _LOGITS // self._vocabulary)
        for some in places.tensor_split(-(-len(places) // most)):
            logits = logits_of(some)
            for part in logits.split(max(1, _AT_ONCE // logits.shape[-1])):
                here = (first <= rows) & (rows < first + len(part))
                given = part.log_softmax(-1, dtype=dtype), rows[here] - first, tokens[here]
                log_probs[here] = _chosen(*given)
                if greedy:
                    best[here] = _most_probable(*given, log_probs[here])
                first += len(part)
            del logits, part, given  # so that they do not exist together with the next ones
        lengths = [len(reader.continuation) for reader, _ in asked]
        each = zip(asked, log_probs.split(lengths), best.split(lengths), strict=True)
        return {reader.request: Answer(own, bool(top.all())) for (reader, _), own, top in each}

    def _bytes(self, positions: int) -> int:
        return logits_bytes(positions, self._vocabulary)


def _rows_at(logits: Tensor, places: Tensor) -> Tensor:
    """Return the logits of places in ascending order [place, vocab]; without a copy if no place between is left out."""
    first, last = int(places[0]), int(places[-1])
    return logits[first : last + 1] if last - first + 1 == len(places) else logits[places.to(logits.device)]


def _chosen(log_probs: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of each token [token] in its row of `log_probs` [row, vocab]."""
    return log_probs[rows.to(log_probs.device), tokens.to(log_probs.device)].cpu()


def _most_probable(log_probs: Tensor, rows: Tensor, tokens: Tensor, own: Tensor) -> Tensor:
    """Return whether each token [token], whose log-probability is `own`, is the most probable one of its row.

    Of several tokens with the same probability the first one counts. They are looked for only where it matters, since
    `argmax` takes much longer than `amax`.
    """
    best = own == log_probs.amax(-1).cpu()[rows]
    best[best.clone()] = log_probs[rows[best].to(log_probs.device)].argmax(-1).cpu() == tokens[best]
    return best
