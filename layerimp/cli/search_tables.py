"""The table of a search: how many blocks may go by each scorer's choice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from layerimp.cli.tables import share_and_error, shown

if TYPE_CHECKING:
    from layerimp.report.data import Report
    from layerimp.report.search import Search


def removable(report: Report, search: Search) -> Table:
    """How many blocks may go, from the most to the fewest; and what is retained then."""
    table = Table(
        title=shown(f"removable of {report.num_blocks} blocks while {_percent(search.keep)} is retained"),
        box=SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
    )
    table.add_column("model")
    for name in ("removable\nblocks", "retained\nsearched", "retained\nconfirmed"):
        table.add_column(name, justify="right")
    table.add_column("tried")
    for label in search.order:
        found = search.removable[label]
        halves = (None, None) if (last := found.last) is None else (last.searched, last.confirmed)
        tried = ", ".join(str(one.count) for one in found.tried)
        table.add_row(shown(label), str(found.count), *map(share_and_error, halves), tried)
    return table


def legend(report: Report, search: Search) -> Iterator[str]:
    """What has to be known to read the table."""
    what = "rows of held-out calibration text" if search.held_out else f"documents of {', '.join(search.measured_on)}"
    yield f"searched: on the half of the {what} that the number was chosen by"
    yield "confirmed: on the other half, on which all that follows is measured as well"
    for label in search.order:
        found = search.removable[label]
        if found.first > found.count:
            yield (
                f"{label}: the search found {found.first}, of which the other half confirmed {found.count}; so both "
                "halves have chosen, and its confirmation looks somewhat better than it is"
            )
        elif not found.count and found.tried:
            least = found.tried[0]
            yield f"{label}: nothing can go; {least.count} removed leaves {share_and_error(least.searched)}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
