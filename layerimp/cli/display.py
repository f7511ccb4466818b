"""What a user sees: progress on stderr, tables or one JSON document on stdout."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
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
from rich.text import Text

from layerimp.model_card import measured
from layerimp.recipe import ORIGINAL

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.progress import Advance
    from layerimp.report import Report

WIDTH_WITHOUT_TERMINAL = 120


def shown(text: str, style: str = "") -> Text:
    """A name or a sentence from outside, as it is: no markup is read in it, and no control character left in it."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text), style=style)


class Screen:
    """Shows progress and results. Names from outside are shown as they are, never read as markup.

    Args:
        json: Whether stdout gets one JSON document and nothing else.
    """

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        # The streams as they are now: an evaluator may redirect the process's own while it works.
        self.out = _console(sys.stdout)
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

    def show(self, report: Report) -> None:
        """A run's results."""
        if self.json:
            self._print_json(report.to_dict())
            return
        for label in report.importance:
            self._print_whole(_score_table(report, label))
            for note in report.importance[label].notes:
                self.out.print(shown(f"note: {note}", style="yellow"))
        labels = [label for label in report.sizes if label != ORIGINAL]
        if report.metrics.get(ORIGINAL):
            self._print_whole(_metric_table(report, labels))
        elif ORIGINAL in report.metrics:
            reason = "no evaluator of quality was chosen" if report.recipe.tasks else "no tasks were named (--tasks)"
            self.out.print(f"quality was not measured: {reason}")
        if report.footprint.get(ORIGINAL):
            self._print_whole(_footprint_table(report, labels))
        if labels:
            self._print_whole(_removed_table(report, labels))
        self._show_output(report)

    def _print_whole(self, table: Table) -> None:
        """Print a table with all its digits, even where the terminal has to break its lines."""
        title, table.title = table.title, None
        self.out.print(title)
        needed = Measurement.get(self.out, self.out.options.update(width=1000), table).maximum
        wide = Console(file=self.out.file, highlight=False, width=max(needed, self.out.width))
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
            self._print_json({"plugins": rows})
            return
        table = Table("name", "status", "distribution", "hooks", box=SIMPLE_HEAD)
        for row in rows:
            style = {"failed": "red", "disabled": "dim"}.get(row["status"], "")
            told = row["error"] or ", ".join(row["hooks"])
            cells = (row["name"], row["status"], f"{row['distribution']} {row['version']}", told)
            table.add_row(*(shown(cell) for cell in cells), style=style)
        self.out.print(table)

    def show_scorers(self, scorers: list[dict[str, Any]], *, details: bool) -> None:
        """The scorers, or with `details` their options."""
        if self.json:
            self._print_json({"scorers": scorers})
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

    def _print_json(self, document: dict[str, Any]) -> None:
        self.out.file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def _console(stream: Any) -> Console:
    console = Console(file=stream, highlight=False)
    return console if console.is_terminal else Console(file=stream, highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def _bar(console: Console, total: int | None) -> Progress:
    columns = [TextColumn("{task.description}", markup=False), BarColumn()]
    if total is None:
        return Progress(SpinnerColumn(), columns[0], TimeElapsedColumn(), console=console)
    return Progress(*columns, MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def _score_table(report: Report, label: str) -> Table:
    """All blocks by depth with every column, the removed ones marked."""
    importance, plan = report.importance[label], report.plans.get(label)
    removed = plan.blocks if plan else []
    where = f"{report.calibration['rows']} rows, {report.calibration['tokens']:,} tokens"
    title = shown(f"{label}: importance of {report.num_blocks} blocks ({where})")
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    table.add_column("block", justify="right")
    columns = importance.columns or {"score": importance.scores}
    if not any(values == importance.scores for values in columns.values()):
        columns = {"score": importance.scores, **columns}
    for name in columns:
        table.add_column(shown(name.replace("_", "\n")), justify="right")
    if removed:
        table.add_column("removed")
    for row, block in enumerate(importance.blocks):
        gone = [f"✗ {_ordinal(removed.index(block) + 1)}"] if block in removed else [""] if removed else []
        numbers = (f"{values[row]:.4g}" for values in columns.values())
        table.add_row(str(block), *numbers, *gone, style="red" if block in removed else "")
    return table


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _metric_table(report: Report, labels: list[str]) -> Table:
    """The intact and the pruned models side by side."""
    limit = f", first {report.recipe.limit} documents" if report.recipe.limit else ""
    table = Table(title=shown(f"quality (± standard error{limit})"), box=SIMPLE_HEAD)
    for name in ("task", "metric", "better", ORIGINAL):
        table.add_column(name, justify="right" if name == ORIGINAL else "left")
    for label in labels:
        table.add_column(shown(label), justify="right")
        table.add_column("retention", justify="right")
    found = {label: {(m.task, m.name): m for m in report.metrics.get(label, [])} for label in labels}
    for metric in report.metrics[ORIGINAL]:
        key = metric.task, metric.name
        cells = [metric.task, metric.name, "higher" if metric.higher_is_better else "lower", measured(metric)]
        for label in labels:
            kept = report.retention(label).get(key)
            after = found[label].get(key)
            cells += ["-" if after is None else measured(after), "" if kept is None else f"{kept:.1%}"]
        table.add_row(*(shown(cell) for cell in cells))
    return table


def _footprint_table(report: Report, labels: list[str]) -> Table:
    """What the models cost, and by what factor that changed."""
    table = Table(title="footprint", box=SIMPLE_HEAD)
    table.add_column("measure")
    for name in (ORIGINAL, *labels):
        table.add_column(shown(name), justify="right")
    for metric in report.footprint[ORIGINAL]:
        cells = [metric.name, _quantity(metric)]
        for label in labels:
            after = next((m for m in report.footprint.get(label, []) if m.name == metric.name), None)
            cells.append("-" if after is None else f"{_quantity(after)}{_factor(metric, after)}")
        table.add_row(*(shown(cell) for cell in cells))
    return table


def _factor(before: Metric, after: Metric) -> str:
    """By what factor a cost changed; nothing where that is within the noise."""
    noise = 2 * math.hypot(before.stderr or 0, after.stderr or 0)
    return f" (×{after.value / before.value:.2f})" if before.value and abs(after.value - before.value) > noise else ""


def _quantity(metric: Metric) -> str:
    spread = "" if metric.stderr is None else f" ± {_amount(metric.stderr)}"
    return _amount(metric.value) + spread


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.3g}"


def _removed_table(report: Report, labels: list[str]) -> Table:
    """Blocks, parameters and bytes removed, each as a count and a share."""
    table = Table(title="removed", box=SIMPLE_HEAD)
    table.add_column("by")
    for name in ("blocks", "parameters", "bytes"):
        table.add_column(name, justify="right")
    table.add_column("which")
    for label in labels:
        gone = report.removed(label)
        share = gone.share_of(report.sizes[ORIGINAL])
        counts = {"blocks": gone.blocks, "parameters": gone.parameters, "bytes": gone.bytes}
        cells = [f"{count:,} ({share[name]:.2%})" for name, count in counts.items()]
        table.add_row(shown(label), *cells, ", ".join(map(str, sorted(report.plans[label].blocks))))
    return table
