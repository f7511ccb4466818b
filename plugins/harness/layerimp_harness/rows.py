"""Requests for log-likelihoods as rows of tokens: what one forward answers is computed once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

TokenRequest = tuple[Any, list[int], list[int]]
"""What to answer under (or None), the context's tokens, the continuation's."""

_WORTH = 0.1  # a second forward per batch is repaid when sharing saves this fraction of the tokens


@dataclass(frozen=True)
class Reader:
    """A request that is answered by a row.

    Attributes:
        request: The number of the request.
        start: The position whose logits predict the first token of the continuation.
        continuation: The tokens to be predicted.
    """

    request: int
    start: int
    continuation: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """The input tokens of one or more requests.

    Attributes:
        tokens: The context and the continuation without its last token, which nothing follows.
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
        """The tokens of one of the rows after the context."""
        return row.tokens[len(self.context) :]

    @property
    def width(self) -> int:
        """The length of the longest tail."""
        return len(self.rows[0].tokens) - len(self.context)

    @property
    def worth_sharing(self) -> bool:
        """Whether computing the context once saves enough to pay for forwards of its own."""
        saved = len(self.context) * (len(self.rows) - 1)
        return saved > _WORTH * sum(len(row.tokens) for row in self.rows)


def rows_of(requests: Sequence[TokenRequest], max_length: int) -> list[Row]:
    """The rows that answer `requests`, the longest first.

    A request whose tokens begin another request's is answered by the longer row: causal attention makes the logits
    of a position independent of what follows. That covers the one-token options of a question.

    Args:
        requests: Each with a context and a continuation of at least one token.
        max_length: The most tokens of a row; as in lm-eval, tokens are dropped from the left.
    """
    readers: dict[tuple[int, ...], list[Reader]] = defaultdict(list)
    for number, (_key, context, continuation) in enumerate(requests):
        tokens = tuple([*context, *continuation][-(max_length + 1) : -1])
        readers[tokens].append(Reader(number, len(tokens) - len(continuation), tuple(continuation)))
    rows: list[Row] = []
    for tokens in sorted(readers, reverse=True):  # whatever begins with a row stands right before it
        if rows and rows[-1].tokens[: len(tokens)] == tokens:
            rows[-1].readers.extend(readers[tokens])
        else:
            rows.append(Row(tokens, readers[tokens]))
    return sorted(rows, key=lambda row: -len(row.tokens))


def grouped(rows: Sequence[Row]) -> tuple[list[Group], list[Row]]:
    """Groups of rows whose context is worth computing once, the longest context first; and the remaining rows."""
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
