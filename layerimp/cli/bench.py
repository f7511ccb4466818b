"""`layerimp bench` and `layerimp report`: computing a grid, and showing its results."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from layerimp.cli import options as o
from layerimp.cli.completion import names, values
from layerimp.cli.requests import grid_from, permissions
from layerimp.cli.streams import after_writing
from layerimp.defaults import ALL
from layerimp.errors import OptionError


class Format(StrEnum):
    """The format of a printed report."""

    terminal = "terminal"
    markdown = "markdown"
    csv = "csv"
    latex = "latex"
    json = "json"
    html = "html"


def bench(
    recipe: Annotated[Path | None, typer.Option(help="YAML or JSON recipe of a grid; options given here win.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model, or LABEL=MODEL; repeatable. A label of the recipe keeps its dtype. Default: starter.",
            autocompletion=names("model", after="="),
        ),
    ] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            help="Scorer, LABEL=SCORER, or all; repeatable. Default: gbis, lrp, cim, avss.",
            autocompletion=names("scorer", ALL, after="="),
        ),
    ] = None,
    tasks: o.tasks = None,
    output: Annotated[
        Path | None, typer.Option(help="Directory of the results; finished cells in it are not computed again.")
    ] = None,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Leave out random, depth and block-influence.")
    ] = False,
    pruner: Annotated[
        list[str] | None,
        typer.Option(
            help="Pruner, or LABEL=PRUNER; repeatable. Default: lowest.", autocompletion=names("pruner", after="=")
        ),
    ] = None,
    cuts: o.cuts = None,
    heal: o.heal = None,
    heal_text: o.heal_text = None,
    allow_overlap: o.allow_overlap = None,
    ratio: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of the blocks to remove, less of the parameters; repeatable. "
            "Default: 0.25, or what --count says."
        ),
    ] = None,
    count: Annotated[
        list[int] | None, typer.Option(help="How many blocks to remove; repeatable, may be combined with --ratio.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="How often to repeat each scoring, each time with different text. Default: 5.")
    ] = None,
    random_draws: Annotated[
        int | None, typer.Option(help="How many random choices the baseline random makes, at least. Default: 10.")
    ] = None,
    calibration: o.calibration = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Where cells are computed: local, or ray (a cluster).", autocompletion=values("local", "ray")
        ),
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Address of the Ray cluster. Default: RAY_ADDRESS, or else one on this machine.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Worker processes; 0: compute in this one. Default: one per device, or all of a cluster."
        ),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try cells again that failed before.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="LABEL.OPTION=VALUE, for a scorer, pruner, healer or evaluator; repeatable."),
    ] = None,
    field: o.field = None,
    packing: o.packing = None,
    label_field: o.label_field = None,
    samples: o.samples = None,
    max_length: o.max_length = None,
    batch_size: o.batch_size = None,
    seed: o.seed = None,
    protect: o.protect = None,
    evaluator: Annotated[
        list[str] | None,
        typer.Option(
            help="Evaluator of quality; repeatable. Default: harness.", autocompletion=names("evaluator", after="=")
        ),
    ] = None,
    task_path: o.task_path = None,
    data_dir: o.data_dir = None,
    limit: o.limit = None,
    num_fewshot: o.num_fewshot = None,
    allow_task_code: o.allow_task_code = False,
    dtype: o.dtype = None,
    device: o.device = None,
    trust_remote_code: o.trust_remote_code = False,
    dry_run: o.dry_run = False,
    json: o.json = False,
) -> None:
    """Compare scorers over models, ratios, tasks and repeats, with error bars; continues where it stopped.

    Example: layerimp bench --model DIR --scorer avss --scorer lrp --count 1 --ratio 0.25 --tasks wikitext --output OUT
    """
    given = dict(locals())
    from layerimp.cli.display import Screen

    screen = Screen(json=json)
    grid = grid_from(**given)
    if output is None:
        raise OptionError("bench keeps what it computes: name a directory with --output")
    allowed = permissions(**given)
    from layerimp.bench import commands as pipeline
    from layerimp.cli.grid_progress import watching

    if dry_run:
        from layerimp.bench.forecast import foretell_grid
        from layerimp.cli.forecast import show_grid

        pipeline.check_grid(grid, output, allowed, engine=engine, address=address, workers=workers, device=device)
        show_grid(foretell_grid(grid, output, permissions=allowed, progress=screen, device=device), screen)
        return
    try:
        with watching(screen) as watcher:
            found = pipeline.run_grid(
                grid,
                output,
                permissions=allowed,
                progress=screen,
                watcher=watcher,
                engine=engine,
                address=address,
                workers=workers,
                device=device,
                retry=retry_failed,
            )
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"finished cells are kept in {output}, and the same command goes on with the others")
        raise
    with after_writing(output):
        screen.show_findings(found, output)
    if found.cells["failed"] and not any(model.rows for model in found.models.values()):
        raise typer.Exit(1)


def report(
    directory: Annotated[Path, typer.Argument(help="The output of bench.")],
    format_: Annotated[
        Format, typer.Option("--format", help="Format; html writes DIR/report.html again and prints its path.")
    ] = Format.terminal,
) -> None:
    """Show what a bench has found so far, even while it is running.

    Example: layerimp report OUT --format latex
    """
    from layerimp.bench import commands as pipeline
    from layerimp.cli.display import Screen

    found = pipeline.findings(directory)
    screen = Screen(json=format_ == Format.json)
    if format_ == Format.html:
        page = pipeline.write_page(found, directory)
        with after_writing(page):
            screen.print_text(f"{page}\n")
    elif format_ in (Format.terminal, Format.json):
        screen.show_findings(found, directory)
    else:
        from layerimp.report.formats import FORMATS

        screen.print_text(FORMATS[format_.value](found))
