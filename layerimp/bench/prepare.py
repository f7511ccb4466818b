"""The first half of `layerimp bench`: a grid is checked, and everything that determines its cells is found."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from layerimp._paths import expanded
from layerimp.bench.cell_graph import Layout
from layerimp.bench.digests import FileDigests
from layerimp.bench.grid import Grid
from layerimp.bench.resolve import resolve
from layerimp.bench.store import check_place, stored_in
from layerimp.errors import OptionError
from layerimp.pipeline.output import refuse_precious
from layerimp.pipeline.resolve import check_ahead
from layerimp.pruner import Budget
from layerimp.recipe import Permissions, check_kind

if TYPE_CHECKING:
    from layerimp.bench.engine import Engine
    from layerimp.bench.resolve import Evaluators
    from layerimp.bench.store import Digests
    from layerimp.progress import Progress


@dataclass(frozen=True)
class PreparedGrid:
    """A grid that can be computed, as far as this is known before weights are read.

    Attributes:
        layout: The grid, with everything that determines its cells.
        evaluators: The evaluators of each model, by the labels of both.
        digests: The digests of files, for later runs.
        output: The directory of the store.
        engine: Where the cells are computed.
        permissions: Which code that came with data may run.
    """

    layout: Layout
    evaluators: Evaluators
    digests: Digests
    output: Path
    engine: Engine
    permissions: Permissions


def prepared_grid(
    grid: Grid, output: Path, engine: Engine, permissions: Permissions, progress: Progress
) -> PreparedGrid:
    """Prepare a grid. Nothing is loaded, computed or written.

    Args:
        grid: The grid.
        output: The directory of the store, which may hold finished cells.
        engine: Where the cells are computed.
        permissions: Which code that came with data may run.
        progress: Where to report progress.

    Raises:
        InputError: something in the grid is wrong, or the directory holds something else.
    """
    check_kind(grid, Grid)
    engine.check(progress)
    check_place(output)
    for spec in grid.models.values():
        refuse_precious(expanded(output).absolute(), spec.model)
    _check_amounts(grid, permissions)
    with stored_in(output) as store:
        digests = FileDigests(store.digests() if store else {})
        before = _readable(store.layout() if store else None)
    layout, evaluators = resolve(grid, digests, engine, permissions, progress, before)
    return PreparedGrid(layout, evaluators, digests.known, output, engine, permissions)


def _readable(layout: dict[str, Any] | None) -> Layout | None:
    """Return the layout of a stored grid; None if there is none, or it is of another version."""
    with suppress(ValidationError):
        return None if layout is None else Layout.model_validate(layout)
    return None


def _check_amounts(grid: Grid, permissions: Permissions) -> None:
    """Refuse a model from which none of the amounts can be removed; if some can, the others fail as cells."""
    for label, spec in grid.models.items():

        def check(num_blocks: int, label: str = label) -> None:
            reasons = []
            for amount in grid.amounts:
                share = {"count": amount} if isinstance(amount, int) else {"ratio": amount}
                try:
                    Budget.of(num_blocks, protect=grid.protect, **share)
                except OptionError as error:
                    reasons.append(str(error))
            if len(reasons) == len(grid.amounts):
                raise OptionError(f"nothing can be removed from {label!r}: {'; '.join(reasons)}")

        check_ahead(spec.model, permissions, check)
