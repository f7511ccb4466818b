"""The commands `layerimp bench` and `layerimp report`: prepare -> compute -> find -> report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from layerimp.bench.cell_graph import Layout
from layerimp.bench.engine import LOCAL, Engine
from layerimp.bench.prepare import prepared_grid
from layerimp.bench.results import grid_results
from layerimp.bench.scheduler import Scheduler
from layerimp.bench.store import FILE, Store
from layerimp.bench.watcher import Watcher
from layerimp.errors import OutputError
from layerimp.progress import SILENT, Progress
from layerimp.recipe import Permissions
from layerimp.report.document import PAGE, RESULTS, read_results, write_results

if TYPE_CHECKING:
    from layerimp.bench.grid import Grid
    from layerimp.bench.prepare import PreparedGrid
    from layerimp.report.document import Results


def run_grid(
    grid: Grid,
    output: Path,
    *,
    permissions: Permissions | None = None,
    progress: Progress = SILENT,
    watcher: Watcher | None = None,
    engine: str = LOCAL,
    address: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    retry: bool = False,
) -> Results:
    """Compute the cells of a grid that are not yet in the store in `output`, and write the results and their page.

    Args:
        grid: The grid.
        output: The directory of the store. Finished cells in it are kept.
        permissions: Which code that came with data may run; by default none.
        progress: Where to report progress of the preparations.
        watcher: Where to report progress of the cells; by default nowhere.
        engine: Where cells are computed: `local`, or `ray`.
        address: The address of the Ray cluster; by default the one in the environment, or else one on this machine.
        workers: The largest number of tasks of a Ray cluster at once; by default as many as it has room for.
        device: The device of the models; by default the first GPU, else the CPU. A cluster assigns devices itself.
        retry: Whether to try cells again that failed before.

    Raises:
        InputError: something in the grid is wrong, or the directory holds something else.
    """
    where, allowed = Engine(engine, address, workers, device), permissions or Permissions()
    prepared = prepared_grid(grid, Path(output), where, allowed, progress)
    return compute(prepared, watcher or Watcher(), retry=retry)


def compute(prepared: PreparedGrid, watcher: Watcher, *, retry: bool = False) -> Results:
    """Compute the cells of a prepared grid that are not yet in its store, and write the results and their page.

    Args:
        prepared: The grid.
        watcher: Where to report progress of the cells.
        retry: Whether to try cells again that failed before.

    Raises:
        OutputError: the directory cannot be written, or another process is writing to it.
    """
    from layerimp.report.page import write_page

    layout, output = prepared.layout, prepared.output
    with Store(output) as store:
        store.keep_layout(layout.model_dump(mode="json"), prepared.digests)
        scheduler = Scheduler(layout, store, prepared.permissions, watcher, retry=retry)
        try:
            if scheduler.wants_any():
                scheduler.run(prepared.engine.executor())
        finally:
            results = grid_results(layout, store.records(), output)
            write_results(results, output)
            write_page(results, output)
    return results


def stored_results(directory: Path) -> Results:
    """Return the results in the output directory of a grid or a run.

    Where there is a store they are made of its cells, so that they are those of now, even while a grid is computed.

    Raises:
        OutputError: the directory holds neither, or one of another version of layerimp.
    """
    if (directory / RESULTS).exists() and not (directory / FILE).exists():
        return read_results(directory)
    if (page := directory / PAGE).exists() and not (directory / FILE).exists():
        raise OutputError(f"{directory} is no output of layerimp bench or run; its report is the page {page}")
    with Store(directory, write=False) as store:
        layout = store.layout()
        if layout is None:
            raise OutputError(f"{directory / FILE} holds no grid yet")
        try:
            return grid_results(Layout.model_validate(layout), store.records(), directory)
        except ValidationError:
            raise OutputError(
                f"the grid in {directory} is of another version of layerimp; run bench there again"
            ) from None
