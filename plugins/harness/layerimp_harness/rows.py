"""Combine requests for log-likelihoods into rows of tokens, so that nothing is computed twice."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TokenRequest = tuple[Any, list[int], list[int]]
"""The key of the answer or None, the tokens of the context, and those of the continuation."""

_WORTH = 0.1  # the fraction of tokens that sharing must save to pay for a second forward per batch


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


@dataclass(frozen=True)
class Group:
    """Rows that begin with the same context, such as the options of a question.

    Attributes:
        context: The tokens up to the first position whose logits are read.
        rows: At least two rows, all of them longer than the context; the longest first.
    """

    context: tuple[int, ...]
    rows: list[Row]

    def tail(self, row: Row) -> tuple[int, ...]:
        """Return the tokens of one of the rows after the context."""
        return row.tokens[len(self.context) :]

    @property
    def width(self) -> int:
        """The length of the longest tail."""
        return len(self.rows[0].tokens) - len(self.context)

    @property
    def worth_sharing(self) -> bool:
        """Whether computing the context once saves enough to pay for a separate forward."""
        saved = len(self.context) * (len(self.rows) - 1)
        return saved > _WORTH * sum(len(row.tokens) for row in self.rows)


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


def grouped(rows: Sequence[Row]) -> tuple[list[Group], list[Row]]:
    """Return the groups of rows that should share a context, the longest context first, and the remaining rows."""
    by_context: dict[tuple[int, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by_context[row.tokens[: row.start + 1]].append(row)
    groups: list[Group] = []
    single: list[Row] = []
    for context, members in by_context.items():
        group = Group(context, members)
        if len(members) > 1 and group.worth_sharing:
            groups.append(group)
        else:
            single += members
    groups.sort(key=lambda group: (-len(group.context), -group.width))
    return groups, sorted(single, key=lambda row: -len(row.tokens))
