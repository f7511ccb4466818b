"""The commands `layerimp bench` and `layerimp report`: resolve -> compute -> find -> report."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from layerimp._paths import expanded
from layerimp.bench.cell_graph import Layout
from layerimp.bench.executors.base import NO_RAY, Executor
from layerimp.bench.executors.in_process import InProcess
from layerimp.bench.executors.processes import Processes, devices
from layerimp.bench.findings import find
from layerimp.bench.grid import Grid
from layerimp.bench.resolve import resolve
from layerimp.bench.scheduler import Scheduler, Unwatched, Watcher
from layerimp.bench.store import FILE, Store, check_place
from layerimp.checkpoint.staging import check_name
from layerimp.errors import OptionError, OutputError, unknown_name
from layerimp.models.devices import device_named
from layerimp.pipeline.ahead import check_ahead
from layerimp.pipeline.output import refuse_precious
from layerimp.progress import SILENT, Progress
from layerimp.pruner import Budget
from layerimp.recipe import Permissions, check_kind
from layerimp.report.results import Findings

LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)


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
) -> Findings:
    """Compute the cells of a grid that are not yet in the store in `output`, and write the report.

    Args:
        grid: The grid.
        output: The directory of the store. Finished cells in it are kept.
        permissions: Which code that came with data may run; by default none.
        progress: Where to report progress of the preparations.
        watcher: Where to report progress of the cells; by default nowhere.
        engine: Where cells are computed: `local`, or `ray`.
        address: The address of the Ray cluster; by default the one in the environment, or else one on this machine.
        workers: The number of worker processes; 0 to compute in this process; by default one for each device, or as
            many as a cluster has room for.
        device: The device of the workers' models; by default all GPUs, else the CPU. A cluster assigns devices itself.
        retry: Whether to try cells again that failed before.

    Raises:
        InputError: something in the grid is wrong, or the directory holds something else.
    """
    place, output, allowed = device_named(device), Path(output), permissions or Permissions()
    check_grid(grid, output, allowed, engine=engine, address=address, workers=workers, device=device)
    with Store(output) as store:
        layout = resolve(grid, store, allowed, progress, place, copies=1 if engine == RAY else max(workers or 1, 1))
        store.keep_layout(layout.model_dump(mode="json"))
        scheduler = Scheduler(layout, store, allowed, watcher or Unwatched(), retry=retry)
        try:
            if scheduler.wants_any():
                scheduler.run(_executor(engine, address, workers, device))
        finally:
            found = find(layout, store.records())
            write_page(found, output)
    return found


def check_grid(
    grid: Grid,
    output: Path,
    permissions: Permissions,
    *,
    engine: str = LOCAL,
    address: str | None = None,
    workers: int | None = None,
    device: str | None = None,
) -> None:
    """Refuse a grid that cannot succeed, before any model is read; see `run_grid`.

    Raises:
        InputError: something in the grid is wrong, or the directory holds something else.
    """
    check_kind(grid, Grid)
    _check_engine(engine, address, workers, device)
    check_name(output)
    check_place(output)
    for spec in grid.models.values():
        refuse_precious(expanded(output).absolute(), spec.model)
    _check_amounts(grid, permissions)


def _check_engine(engine: str, address: str | None, workers: int | None, device: str | None) -> None:
    """Refuse options that contradict each other, before any work is done."""
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if engine == RAY and device is not None:
        raise OptionError("--device is for the local engine; a Ray cluster gives out its GPUs and CPUs itself")
    if engine == RAY and find_spec("ray") is None:
        raise OptionError(NO_RAY)
    if engine == RAY and workers == 0:
        raise OptionError("--workers 0 computes in this process, which is for the local engine")
    if engine != RAY and address is not None:
        raise OptionError("--address is that of a Ray cluster; it needs --engine ray")


def _check_amounts(grid: Grid, permissions: Permissions) -> None:
    """Refuse a model from which none of the amounts can be removed; if some can, the others fail as cells."""
    for label, spec in grid.models.items():

        def check(num_blocks: int, label: str = label) -> None:
            reasons = []
            for amount in grid.amounts:
                share = {"count": amount} if isinstance(amount, int) else {"ratio": amount}
                try:
                    Budget.of(num_blocks, protect=grid.protect, cuts=grid.cuts, **share)
                except OptionError as error:
                    reasons.append(str(error))
            if len(reasons) == len(grid.amounts):
                raise OptionError(f"nothing can be removed from {label!r}: {'; '.join(reasons)}")

        check_ahead(spec.model, permissions, check)


def _executor(engine: str, address: str | None, workers: int | None, device: str | None) -> Executor:
    if engine == RAY:
        from layerimp.bench.executors.ray import Ray

        return Ray(address, workers)
    return InProcess(device) if workers == 0 else Processes(devices(device, workers))


def findings(directory: Path) -> Findings:
    """Return the findings for the last requested grid, from the store in a directory.

    Raises:
        OutputError: the directory holds no grid, or one of another version of layerimp.
    """
    with Store(directory, write=False) as store:
        layout = store.layout()
        if layout is None:
            raise OutputError(f"{directory / FILE} holds no grid yet")
        try:
            return find(Layout.model_validate(layout), store.records())
        except ValidationError:
            raise OutputError(
                f"the grid in {directory} is of another version of layerimp; run bench there again"
            ) from None


def write_page(found: Findings, directory: Path) -> Path:
    """Write the report as a single HTML file, and return its path."""
    from layerimp.report.html.page import page, write

    return write(page(found), directory)
