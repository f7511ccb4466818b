"""What a user sees: progress on stderr, tables or one JSON document on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from layerimp.cli import score_tables, tables
from layerimp.cli.grid_progress import span
from layerimp.cli.streams import results
from layerimp.cli.tables import shown
from layerimp.defaults import ORIGINAL

if TYPE_CHECKING:
    from pathlib import Path

    from layerimp.progress import Advance
    from layerimp.report.data import Report
    from layerimp.report.findings import Findings

WIDTH_WITHOUT_TERMINAL = 120


class Screen:
    """Shows progress and results. Names from outside are shown as they are, never read as markup.

    Args:
        json: Whether stdout gets one JSON document and nothing else.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        # The streams as they are now: an evaluator may redirect the process's own while it works.
        self.out = _console(results())
        self.err = _console(sys.stderr)

    @contextmanager
    def stage(self, description: str, total: int | None = None) -> Iterator[Advance]:
        """A progress bar on a terminal; elsewhere one line when the stage is done."""
        if self.err.is_terminal:
            with _bar(self.err, total) as bar:
                task = bar.add_task(shown(description).plain, total=total)
                yield lambda units: bar.advance(task, units)
                bar.update(task, completed=total or 1, total=total or 1)
            return
        start = time.monotonic()
        yield lambda _units: None
        self.err.print(shown(f"{description}: {time.monotonic() - start:.1f} s"))

    def note(self, text: str) -> None:
        """One line on stderr."""
        self.err.print(shown(f"note: {text}", style="yellow"), soft_wrap=True)

    def show(self, report: Report) -> int:
        """A run's results; returns the exit code: 1 where what was asked for failed while the rest went on."""
        if self.json:
            self.print_json(report.to_dict())
        else:
            self._show_tables(report)
        for label, why in report.failed.items():
            self.err.print(shown(f"failed: {label}: {why}", style="red"), soft_wrap=True)
        return 1 if report.failed else 0

    def _show_tables(self, report: Report) -> None:
        for label in report.importance:
            if label not in report.baselines:
                self._print_whole([score_tables.scores(report, label)])
                for note in report.importance[label].notes:
                    self.out.print(shown(f"note: {note}", style="yellow"))
        labels = [label for label in report.sizes if label != ORIGINAL]
        quality = report.metrics.get(ORIGINAL)
        if quality and len(labels) < 2:
            self._print_whole([tables.metrics(report, labels)])
        elif not quality and ORIGINAL in report.metrics:
            reason = "no evaluator of quality was chosen" if report.recipe.tasks else "there are no tasks (--tasks)"
            self.out.print(f"quality was not measured: {reason}")
        if report.footprint.get(ORIGINAL):
            self._print_whole(tables.footprint(report, labels, self._fits))
        if quality and len(labels) > 1:
            self._print_whole(tables.comparison(report, self._fits))
            for line in tables.legend(report):
                self.out.print(shown(line))
        elif labels:
            self._print_whole([tables.removed(report, labels)])
        for line in (*tables.seams(report, labels), *tables.healing(report)):
            self.out.print(shown(line))
        if quality:
            for note in report.notes:
                self.out.print(shown(f"note: {note}", style="yellow"))
            self.out.print()
        self._show_output(report)

    def show_findings(self, found: Findings, directory: Path) -> None:
        """What a grid shows."""
        if self.json:
            from layerimp.report.json_export import as_document

            self.print_json(as_document(found) | {"output": str(directory.absolute())})
            return
        from layerimp.bench.commands import PAGE
        from layerimp.report.tables import legend, paper_tables, summaries

        for table in paper_tables(found):
            self._print_whole(tables.paper(table, self._fits))
        self._print_whole([tables.summary(table) for table in summaries(found)])
        shown_any = any(model.rows for model in found.models.values())
        for line in legend(found) if shown_any else ("nothing is evaluated",):
            self.out.print(
                shown(line.replace("(bold)", "(bold, *)").replace("(underlined)", "(underlined, +)")), soft_wrap=True
            )
        for note in found.notes:
            self.note(note)
        if found.failures:
            self.out.print(shown("\nfailed (--retry-failed tries again)"))
            for cell, error in found.failures:
                self.out.print(shown(f"  {cell}: {error}", style="yellow"), soft_wrap=True)
        counts = ", ".join(f"{count} {state}" for state, count in found.cells.items() if count)
        self.out.print(shown(f"\ncells: {counts or 'none'}; {span(found.seconds)} of work"))
        if (directory / PAGE).exists():
            self.out.print(shown(f"report: {directory / PAGE}", style="bold"), soft_wrap=True)

    def _needed(self, table: Table) -> int:
        return Measurement.get(self.out, self.out.options.update(width=1000), table).maximum

    def _fits(self, table: Table) -> bool:
        return self._needed(table) <= self.out.width

    def _print_whole(self, parts: list[Table]) -> None:
        """Print a table, or the parts of a wide one, with all digits even where the terminal has to break the lines."""
        for table in parts:
            title, table.title = table.title, None
            if title:
                self.out.print(title)
            wide = Console(file=self.out.file, highlight=False, width=max(self._needed(table), self.out.width))
            wide.print(table)

    def _show_output(self, report: Report) -> None:
        for label, path in report.checkpoints.items():
            self.out.print(shown(f"checkpoint of {label}: {path}", style="bold"), soft_wrap=True)
            self.out.print(shown(f"    from transformers import {report.loader}"), soft_wrap=True)
            self.out.print(shown(f"    model = {report.loader}.from_pretrained({str(path)!r})"), soft_wrap=True)
        if report.output:
            self.out.print(shown(f"results: {report.output}", style="bold"), soft_wrap=True)

    def show_plugins(self, rows: list[dict[str, Any]]) -> None:
        """The installed plugins."""
        if self.json:
            self.print_json({"plugins": rows})
            return
        table = Table("name", "status", "distribution", "import", "what it provides, or what is wrong", box=SIMPLE_HEAD)
        for row in rows:
            style = {"failed": "red", "disabled": "dim"}.get(row["status"], "")
            told = row["error"] or "; ".join(_provided(row))
            source, seconds = f"{row['distribution']} {row['version']}", f"{row['seconds']:.2f} s"
            cells = (row["name"], row["status"], source, seconds, told)
            table.add_row(*(shown(cell) for cell in cells), style=style)
        self.out.print(table)

    def show_scorers(self, scorers: list[dict[str, Any]], *, details: bool) -> None:
        """The scorers, or with `details` their options."""
        if self.json:
            self.print_json({"scorers": scorers})
            return
        if not details:
            table = Table("scorer", "what it measures", "reference", "plugin", box=SIMPLE_HEAD)
            for one in scorers:
                table.add_row(*(shown(one[key]) for key in ("name", "summary", "reference", "plugin")))
            self.out.print(table)
            return
        for one in scorers:
            self.out.print(shown(f"{one['name']}: {one['summary']}", style="bold"))
            self.out.print(shown(f"reference: {one['reference'] or 'none'}; plugin: {one['plugin']}"))
            table = Table("option", "type", "default", "description", box=SIMPLE_HEAD)
            for option in one["options"]:
                cells = (option["name"], option["type"], option["default"], option["description"])
                table.add_row(*(shown(str(cell)) for cell in cells))
            self.out.print(table if one["options"] else shown("no options"))

    def print_text(self, text: str) -> None:
        """Text on stdout, as it is."""
        self.out.file.write(text)

    def print_json(self, document: Mapping[str, Any]) -> None:
        """One JSON document on stdout."""
        self.out.file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def _provided(plugin: dict[str, Any]) -> Iterator[str]:
    """What a plugin provides: its components by kind, and its hooks that provide something else."""
    for kind, names in plugin["components"].items():
        yield f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}"
    yield from (hook for hook in plugin["hooks"] if hook.removeprefix("layerimp_")[:-1] not in plugin["components"])


def _console(stream: Any) -> Console:
    console = Console(file=stream, highlight=False)
    return console if console.is_terminal else Console(file=stream, highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def _bar(console: Console, total: int | None) -> Progress:
    columns = [TextColumn("{task.description}", markup=False), BarColumn()]
    if total is None:
        return Progress(SpinnerColumn(), columns[0], TimeElapsedColumn(), console=console)
    return Progress(*columns, MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console)
