"""Combine requests for log-likelihoods into rows of tokens, so that nothing is computed twice."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TokenRequest = tuple[Any, list[int], list[int]]
"""The key of the answer or None, the tokens of the context, and those of the continuation."""


@dataclass(frozen=True)
class Reader:
    """A request that a row answers.

    Attributes:
        request: The number of the request.
        start: The position whose logits predict the first token of the continuation.
        continuation: The tokens to predict.
    """

    request: int
    start: int
    continuation: tuple[int, ...]

    @property
    def end(self) -> int:
        """The position after the last one that is read."""
        return self.start + len(self.continuation)


@dataclass(frozen=True)
class Row:
    """The input tokens of one or more requests.

    Attributes:
        tokens: The context and the continuation, without the last token, after which nothing is predicted.
        readers: The requests that the row answers.
    """

    tokens: tuple[int, ...]
    readers: list[Reader]

    @property
    def start(self) -> int:
        """The first position whose logits are read."""
        return min(reader.start for reader in self.readers)


def rows_of(requests: Sequence[TokenRequest], max_length: int) -> list[Row]:
    """Return the rows that answer `requests`, the longest first.

    If the tokens of a request are a prefix of another request's tokens, the longer row answers both: with causal
    attention the logits at a position do not depend on later tokens. This includes the one-token options of a question.

    Args:
        requests: Each with a context and a continuation of at least one token.
        max_length: The maximum number of tokens in a row; as in lm-eval, tokens are dropped from the left.
    """
    readers: dict[tuple[int, ...], list[Reader]] = defaultdict(list)
    for number, (_key, context, continuation) in enumerate(requests):
        tokens = tuple([*context, *continuation][-(max_length + 1) : -1])
        readers[tokens].append(Reader(number, len(tokens) - len(continuation), tuple(continuation)))
    rows: list[Row] = []
    for tokens in sorted(readers, reverse=True):  # a row comes right before its prefixes
        if rows and rows[-1].tokens[: len(tokens)] == tokens:
            rows[-1].readers.extend(readers[tokens])
        else:
            rows.append(Row(tokens, readers[tokens]))
    return sorted(rows, key=lambda row: -len(row.tokens))
