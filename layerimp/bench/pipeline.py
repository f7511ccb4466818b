"""settle -> compute -> find -> report: what `layerimp bench` and `layerimp report` do."""

from __future__ import annotations

from pathlib import Path

from layerimp.bench.driver import Driver, Watcher
from layerimp.bench.engines import Engine
from layerimp.bench.engines.here import Here
from layerimp.bench.engines.local import Local, devices
from layerimp.bench.findings import Findings, find
from layerimp.bench.grid import Grid
from layerimp.bench.layout import Layout
from layerimp.bench.settle import settle
from layerimp.bench.store import FILE, Store
from layerimp.errors import OutputError
from layerimp.model import device_named
from layerimp.progress import Progress
from layerimp.recipe import Permissions

PAGE = "report.html"


def bench(
    grid: Grid,
    output: Path,
    *,
    permissions: Permissions,
    progress: Progress,
    watcher: Watcher,
    workers: int | None = None,
    device: str | None = None,
    retry: bool = False,
) -> Findings:
    """Compute what the store in `output` does not yet know of a grid, and write the report.

    Args:
        grid: The grid.
        output: The directory of the store; what was finished there stays.
        permissions: What may run code.
        progress: Who hears of the preparations.
        watcher: Who hears of the cells.
        workers: How many processes compute; 0 for none but this one; by default one for each device.
        device: Where they put their models; by default all GPUs, else the CPU.
        retry: Whether cells that failed before are tried again.

    Raises:
        InputError: something in the grid is wrong, or the directory holds something else.
    """
    if device is not None:
        device_named(device)
    with Store(output) as store:
        layout = settle(grid, store, permissions, progress)
        store.keep_layout(layout.model_dump(mode="json"))
        driver = Driver(layout, store, permissions, watcher, retry)
        if driver.wants_any():
            driver.run(_engine(device, workers))
        found = find(layout, store.records())
    write_page(found, output)
    return found


def _engine(device: str | None, workers: int | None) -> Engine:
    return Here(device) if workers == 0 else Local(devices(device, workers))


def findings(directory: Path) -> Findings:
    """What the store in a directory shows of the grid that was asked for last.

    Raises:
        OutputError: it holds none.
    """
    with Store(directory, write=False) as store:
        layout = store.layout()
        if layout is None:
            raise OutputError(f"{directory / FILE} holds no grid yet")
        return find(Layout.model_validate(layout), store.records())


def write_page(found: Findings, directory: Path) -> Path:
    """Write the report as one HTML file, and return its path."""
    from layerimp.bench.report.page import page

    path = directory / PAGE
    path.write_text(page(found), encoding="utf-8")
    return path
