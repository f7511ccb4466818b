"""`layerimp cache`: showing and clearing the cache."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from layerimp.cache.directory import KINDS, Entry, Kind, cache_directory, clear, entries
from layerimp.cli import options as o

if TYPE_CHECKING:
    from layerimp.cli.documents import Kept

TOGETHER: dict[Kind, str] = {"metrics": "metrics of intact models"}
"""What is shown in one line, whatever the number of its files."""


_CLEAR = o.option(
    Literal["metrics", "unfinished", "all"] | None,
    "Remove metrics, unfinished work, or all, unless a running command uses it.",
    "--clear",
)


@o.taking("clear_ json", clear_=_CLEAR)
def cache(*, clear_: str | None, json: bool) -> int:
    """Show what is kept between runs, or clear it: metrics of intact models, and interrupted training.

    Example: layerimp cache --clear unfinished
    """
    from layerimp.cache import unfinished
    from layerimp.cli import listings
    from layerimp.cli.display import Screen
    from layerimp.cli.documents import CacheList

    chosen = [kind for kind in KINDS if clear_ in (kind, "all")]
    removed = [row for kind in chosen for row in _rows(kind, clear(kind, unless=unfinished.in_use))]
    kept = [row for kind in KINDS for row in _rows(kind, entries(kind))]
    state = CacheList(directory=str(cache_directory(KINDS[0]).parent), kept=kept, removed=removed)
    Screen(json=json).present(state, listings.cache(state, cleared=clear_ is not None))
    return 0


def _rows(kind: Kind, stored: Sequence[Entry]) -> list[Kept]:
    """Return cache entries as rows: one for each unfinished work, and one for each other kind."""
    from layerimp.cache import unfinished
    from layerimp.cli.documents import Kept

    groups = [(TOGETHER[kind], stored)] if kind in TOGETHER else [(entry.about, [entry]) for entry in stored]
    return [
        Kept(
            kind=kind,
            about=about,
            entries=len(group),
            bytes=sum(entry.size for entry in group),
            changed=datetime.fromtimestamp(max(entry.changed for entry in group), UTC).isoformat(timespec="seconds"),
            in_use=any(unfinished.in_use(entry.path) for entry in group),
        )
        for about, group in groups
        if group
    ]
