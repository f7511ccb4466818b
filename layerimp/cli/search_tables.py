"""The table of a search: how many blocks may be removed by each scorer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp.cli.columns import Column, Fits, packed
from layerimp.cli.tables import share_and_error

if TYPE_CHECKING:
    from rich.table import Table

    from layerimp.report.data import Report
    from layerimp.report.search import Search


def removable(report: Report, search: Search, fits: Fits) -> list[Table]:
    """Show how many blocks may be removed, from the most to the fewest, and what is then retained."""
    found = [search.removable[label] for label in search.order]
    halves = [(None, None) if one.last is None else (one.last.searched, one.last.confirmed) for one in found]
    columns = [
        Column("removable\nblocks", [str(one.count) for one in found]),
        Column("retained\nsearched", [share_and_error(searched) for searched, _ in halves]),
        Column("retained\nconfirmed", [share_and_error(confirmed) for _, confirmed in halves]),
        Column("tried", [", ".join(str(one.count) for one in each.tried) for each in found], "left"),
    ]
    title = f"removable blocks (of {report.num_blocks}) while {_percent(search.keep)} is retained"
    return packed(title, Column("model", list(search.order), "left"), columns, fits)


def legend(report: Report, search: Search) -> Iterator[str]:
    """Yield the lines that explain the table."""
    what = "rows of held-out calibration text" if search.held_out else f"documents of {', '.join(search.measured_on)}"
    yield f"searched: on the half of the {what} used by the search"
    yield "confirmed: on the other half, as are all figures below"
    for label in search.order:
        found = search.removable[label]
        if found.first > found.count:
            yield (
                f"{label}: the search found {found.first}, and the other half confirmed {found.count}; since both "
                "halves took part in the choice, the confirmed share looks slightly better than it is"
            )
        elif not found.count and found.tried:
            least = found.tried[0]
            yield f"{label}: no block can be removed; {least.count} removed leaves {share_and_error(least.searched)}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
