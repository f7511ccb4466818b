"""The parts of pages that show stored results.

What makes a part is imported only when a page requests it, since some of it loads torch and matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable

from table_text import table


def _choices(what: str, model: str = "") -> str:
    """A table of what methods choose, of one model or of all, or of what that bears out."""
    import choice_tables as tables
    import claims

    by_model = {"all": tables.of_model, "ahead": tables.ahead, "tasks": tables.by_task}
    if model:
        head, rows = by_model[what](model)
        if rows:
            return table(head, rows)
        return "Too few draws yet." if tables.of_model(model)[1] else "Not measured yet."
    parts = {"summary": tables.summary, "sites": tables.sites, "searches": tables.searches, "claims": claims.table}
    return table(*parts[what]())


def _published() -> str:
    """Table 1 of the AVSS paper."""
    import published

    return table(*published.table())


def _architectures(what: str, head: str = "") -> str:
    """What was found for every type of model: `counts`, `conditions`, `scorers`, and by head `exact` and `others`."""
    import architecture_tables as tables

    if what in ("conditions", "exact"):
        return tables.exact(head) if head else tables.conditions()
    return table(*(tables.others(head) if head else getattr(tables, what)()))


def _healing() -> str:
    """A table of what healing brings back: `linear`."""
    import healed

    return table(*healed.table())


def _lm_eval(what: str) -> str:
    """A table that sets layerimp's model beside that of lm_eval: `equality`, or `speed`."""
    import beside_lm_eval

    return table(*{"equality": beside_lm_eval.equality, "speed": beside_lm_eval.speed}[what]())


def _distances() -> str:
    """The table of how far pruned and rounded models are from the intact ones."""
    import distances

    return table(*distances.table())


def _shrunk(what: str) -> str:
    """What `layerimp shrink` made of models: the table of `all`, the `short` one, or another of it."""
    import shrunk

    tables = {"all": shrunk.table, "short": shrunk.short}
    tables |= {"continuations": shrunk.continuations, "trainings": shrunk.trainings}
    return table(*tables[what]())


PARTS: dict[str, Callable[..., str]] = {
    "architectures": _architectures,
    "choices": _choices,
    "distances": _distances,
    "healing": _healing,
    "lm-eval": _lm_eval,
    "published": _published,
    "shrunk": _shrunk,
}
"""What makes each part, by the name under which a page requests it."""
