"""The table of a search: how many blocks may be removed by each scorer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp.cli.columns import Column, Fits, packed
from layerimp.report.tables import share_and_error

if TYPE_CHECKING:
    from rich.table import Table

    from layerimp.report.results.search import QualitySearch


def removable(search: QualitySearch, num_blocks: int, fits: Fits) -> list[Table]:
    """Show how many blocks may be removed, from the most to the fewest, and what is then retained."""
    most = [search.removable[label] for label in search.order]
    columns = [
        Column("removable\nblocks", [str(each.count) for each in most]),
        Column("retained\nsearched", [share_and_error(each.retained) for each in most]),
        Column("retained\nconfirmed", [share_and_error(each.confirmed) for each in most]),
        Column("tried", [", ".join(str(model.count) for model in each.tried) for each in most], "left"),
    ]
    title = f"removable blocks (of {num_blocks}) while {_percent(search.keep)} is retained"
    return packed(title, Column("model", list(search.order), "left"), columns, fits)


def legend(search: QualitySearch) -> Iterator[str]:
    """Yield the lines that explain the table."""
    what = "rows of held-out calibration text" if search.held_out else f"documents of {', '.join(search.measured_on)}"
    yield f"searched: on the half of the {what} used by the search"
    yield "confirmed: on the other half, as are all figures below"
    for label in search.order:
        reached = search.removable[label]
        if reached.before_confirmation > reached.count:
            counts = f"the search found {reached.before_confirmation}, and the other half confirmed {reached.count}"
            yield (
                f"{label}: {counts}; since both halves took part in the choice, the confirmed share looks slightly "
                "better than it is"
            )
        elif not reached.count and reached.tried:
            least = reached.tried[0]
            yield f"{label}: no block can be removed; {least.count} removed leaves {share_and_error(least.retained)}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
