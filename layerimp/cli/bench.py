"""`layerimp bench` and `layerimp report`: computing a grid, and showing its results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from layerimp.bench.grid import Grid
from layerimp.cli import options as o
from layerimp.cli.requests import grid_from, permissions
from layerimp.cli.streams import after_writing
from layerimp.defaults import BEST, HEALER, PAPER_SCORERS, PRUNER, SCORERS, STARTER
from layerimp.errors import OptionError

Format = Literal["terminal", "markdown", "csv", "latex", "json", "html"]
"""The format of a printed report."""
_OWN: dict[str, Any] = {
    "model": o.option(
        o.Texts, f"Model, or LABEL=MODEL; repeatable. A label of the recipe keeps its dtype. Default: {STARTER}."
    ),
    "scorer": o.option(
        o.Texts,
        "Scorer, LABEL=SCORER, or all; repeatable; best: that of the recommended method, with its pruner. Default: "
        f"{', '.join((SCORERS[BEST], *PAPER_SCORERS))}.",
    ),
    "pruner": o.option(o.Texts, f"Pruner, or LABEL=PRUNER; repeatable. Default: {PRUNER}."),
    "heal": o.option(
        o.Texts,
        "Healer, or LABEL=HEALER, that repairs every pruned model; repeatable; or none. Default: "
        f"{HEALER} if no scorer is named, else none.",
    ),
    "device": o.option(o.Text, "Device: cpu, cuda, cuda:1 and so on. Default: the first GPU, else the CPU."),
    "output": o.option(o.File, "Directory of the results; finished cells in it are not computed again."),
    "engine": o.option(
        Literal["local", "ray"] | None,
        "Where cells are computed: on this machine, or on a Ray cluster. Default: local.",
    ),
    "address": o.option(o.Text, "Address of the Ray cluster. Default: RAY_ADDRESS, or else one on this machine."),
    "workers": Annotated[
        int | None,
        typer.Option(min=1, help="Most tasks of the Ray cluster at once. Default: as many as it has room for."),
    ],
    "retry_failed": o.option(bool, "Try cells again that failed before.", "--retry-failed"),
}


@o.taking(
    "recipe model scorer tasks output no_baselines pruner heal heal_text allow_overlap ratio count repeats "
    f"random_draws calibration engine address workers retry_failed set_ {o.TEXT} batch_size seed protect evaluator "
    f"{o.TASKS} dtype device trust_remote_code dry_run json",
    kind=Grid,
    **_OWN,
)
def bench(*, retry_failed: bool, dry_run: bool, json: bool, **given: Any) -> int:
    """Compare scorers over models, ratios, tasks and repeats, with error bars; continues where it stopped.

    Example: layerimp bench --model DIR --scorer avss --scorer lrp --count 1 --ratio 0.25 --tasks wikitext --output OUT
    """
    from layerimp.cli.display import Screen

    grid = grid_from(**given)
    if (output := given["output"]) is None:
        raise OptionError("bench keeps what it computes: name a directory with --output")
    from layerimp.bench.commands import compute
    from layerimp.bench.engine import LOCAL, Engine
    from layerimp.bench.prepare import prepared_grid

    where = Engine(given["engine"] or LOCAL, given["address"], given["workers"], given["device"])
    allowed = permissions(**given)
    try:
        with Screen(json=json) as screen:
            prepared = prepared_grid(grid, output, where, allowed, screen)
            if dry_run:
                from layerimp.bench.dry_run import grid_dry_run_of
                from layerimp.cli.dry_run import lines_of

                foreseen = grid_dry_run_of(prepared)
                screen.present(foreseen, lines_of(foreseen))
                return 0
            with screen.grid() as watcher:
                results = compute(prepared, watcher, retry=retry_failed)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"finished cells are kept in {output}, and the same command goes on with the others")
        raise
    with after_writing(output):
        screen.show_results(results, output)
    return int(bool(results.cells["failed"]) and not any(model.rows for model in results.models.values()))


def report(
    directory: Annotated[Path, typer.Argument(help="The output of bench or run.")],
    format_: Annotated[
        Format, typer.Option("--format", help="Format; html writes DIR/report.html again and prints its path.")
    ] = "terminal",
) -> None:
    """Show what a run measured, or what a bench has computed so far, even while it is running.

    Example: layerimp report OUT --format latex
    """
    from layerimp.bench import commands as pipeline
    from layerimp.cli.display import Screen

    results = pipeline.stored_results(directory)
    screen = Screen(json=format_ == "json")
    if format_ == "html":
        if not results.cells and not results.model.removals:
            raise OptionError(f"nothing was removed in {directory}, and the page is about that; --format markdown")
        from layerimp.report.page import write_page

        page = write_page(results, directory)
        with after_writing(page):
            screen.print_text(f"{page}\n")
    elif format_ in ("terminal", "json") and results.cells:
        screen.show_results(results, directory)
    elif format_ in ("terminal", "json"):
        screen.show(results)
    else:
        from layerimp.report.tables import FORMATS

        screen.print_text(FORMATS[format_](results))
