"""The output for users: progress on stderr, tables or one JSON document on stdout."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table as RichTable

from layerimp._table import Table
from layerimp.cli.progress import Reporter
from layerimp.cli.streams import results
from layerimp.cli.tables import BEST, parts, shown
from layerimp.progress import span
from layerimp.report import words
from layerimp.report.document import PAGE
from layerimp.report.model_comparison import comparison_tables
from layerimp.report.tables import fidelity, models, notes, quality, removable, removables, summaries
from layerimp.report.tables.data_frame import COST, FIDELITY, SIZE
from layerimp.report.tables.fidelity_figures import continued, texts_of

if TYPE_CHECKING:
    from pydantic import BaseModel

    from layerimp.report.document import Results
    from layerimp.report.results.compared import ModelComparison
    from layerimp.report.results.comparison import ModelResults
    from layerimp.report.tables.fidelity_figures import Continued

WIDTH_WITHOUT_TERMINAL = 120


class Screen(Reporter):
    """Shows progress and results. Names from outside are shown as they are, never read as markup.

    Args:
        json: Whether stdout gets one JSON document and nothing else.
    """

    def __init__(self, *, json: bool = False) -> None:
        # The current streams, since an evaluator may redirect those of the process while it runs.
        super().__init__(_console(sys.stderr))
        self.json = json
        self.out = _console(results())

    def show(self, results: Results) -> int:
        """Show a run's results, and return the exit code: 1 if a requested component failed while the rest went on."""
        if self.json:
            self.print_json(results)
        else:
            self._show_run(results)
        for failure in results.failures:
            self.err.print(shown(f"failed: {failure.what}: {failure.error}", style="red"), soft_wrap=True)
        return 1 if results.failures else 0

    def _show_run(self, results: Results) -> None:
        model = results.model
        for label, scored in model.scored.items():
            if label not in results.design.added:
                self.print_table(models.scores(model, label))
                self._print_notes(scored.notes)
        if model.search is not None:
            self._print_explained(removable(model.search, model.num_blocks))
            self.out.print()
        self._show_measured(results, model)
        if lines := list(_done(model)):
            self.out.print(shown("\n".join([""] * bool(model.metrics) + lines)))
        if model.metrics or model.all_notes:
            self._print_notes(model.all_notes)
            self.out.print()
        self._show_output(results, model)

    def _show_measured(self, results: Results, model: ModelResults) -> None:
        """Show what was measured, and last what models are worth: of several side by side, of one a row per metric."""
        pruned, beside = models.pruned(model), models.side_by_side(results, model)
        if model.footprint:
            if not model.metrics:
                named = results.request["tasks"]
                why = "no evaluator measures the quality of this model" if named else "there are no tasks (--tasks)"
                self.out.print(f"quality was not measured: {why}")
            self.print_table(beside.of(COST, title="footprint"))
        self._show_fidelity(results)
        worth = [beside.without(SIZE, COST, FIDELITY)] if len(pruned) > 1 else quality(results)
        if pruned and not (model.metrics and len(pruned) > 1):
            self.print_table(beside.of(models.REMOVED, SIZE, title="removed"))
        for table in models.targets(model):
            self.print_table(table)
        if model.metrics:
            self._print_explained(*worth)

    def _show_fidelity(self, results: Results) -> None:
        """Show how far pruned models are from the intact one, and how they continue a few prompts."""
        if tables := fidelity(results):
            self._print_explained(*tables)
            for model in results.models.values():
                self._show_texts(continued(model, results.design.added))
            self.out.print()

    def show_results(self, results: Results, directory: Path) -> None:
        """Show the results of a grid."""
        if self.json:
            self.print_json(results.model_copy(update={"output": str(directory.absolute())}))
            return
        self._show_fidelity(results)
        self._print_explained(*quality(results), *summaries(results), *removables(results))
        if not any(model.rows for model in results.models.values()):
            self.out.print("nothing is evaluated")
        for note in results.all_notes:
            self.note(note)
        if results.failures:
            self.out.print(shown("\nfailed (--retry-failed tries again)"))
            for failure in results.failures:
                self.out.print(shown(f"  {failure.what}: {failure.error}", style="yellow"), soft_wrap=True)
        counts = ", ".join(f"{count} {state}" for state, count in results.cells.items() if count)
        self.out.print(shown(f"\ncells: {counts or 'none'}; {span(results.seconds)} of work"))
        self._show_page(directory)

    def show_comparison(self, comparison: ModelComparison) -> int:
        """Show how far models are from an intact one, and return the exit code: 1 if an evaluator failed."""
        if self.json:
            self.print_json(comparison)
        else:
            self._print_explained(*comparison_tables(comparison))
            self._show_texts(texts_of(comparison.fidelity))
            self._print_notes(comparison.notes)
            if comparison.output:
                self.out.print(shown(f"results: {comparison.output}", style="bold"), soft_wrap=True)
                self._show_page(Path(comparison.output))
        for label, why in comparison.failures.items():
            self.err.print(shown(f"failed: {label}: {why}", style="red"), soft_wrap=True)
        return 1 if comparison.failures else 0

    def _show_texts(self, texts: Iterable[Continued]) -> None:
        """Show continuations prompt by prompt, one below the other, each in one line."""
        for each in texts:
            self.out.print(shown("\n" + "\n".join(each.lines)), soft_wrap=True)

    def _print_explained(self, *explained: Table) -> None:
        """Print tables, and then the lines that explain them."""
        for table in explained:
            self.print_table(table)
        for line in notes(explained):
            self.out.print(shown(line.replace("bold:", f"bold, {BEST}:")))

    def _print_notes(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.out.print(shown(f"note: {line}", style="yellow"))

    def _show_page(self, directory: Path) -> None:
        if (directory / PAGE).exists():
            self.out.print(shown(f"report: {directory / PAGE}", style="bold"), soft_wrap=True)

    def print_table(self, table: Table) -> None:
        """Print a table, in parts if the screen is too narrow, with all digits even if the terminal breaks lines."""
        divided = parts(table, lambda part: self._needed(part) <= self.out.width)
        if table.title:
            self.out.print(shown(table.title))
        for part in divided:
            wide = Console(file=self.out.file, highlight=False, width=max(self._needed(part), self.out.width))
            wide.print(part)

    def _needed(self, table: RichTable) -> int:
        return Measurement.get(self.out, self.out.options.update(width=1000), table).maximum

    def _show_output(self, results: Results, model: ModelResults) -> None:
        for removal in model.removals:
            if (path := removal.models[0].checkpoint) is not None:
                self.out.print(shown(f"checkpoint of {removal.label}: {path}", style="bold"), soft_wrap=True)
                loading = (
                    f"    from transformers import {model.loader}\n    model = {model.loader}.from_pretrained({path!r})"
                )
                self.out.print(shown(loading), soft_wrap=True)
        if results.output:
            self.out.print(shown(f"results: {results.output}", style="bold"), soft_wrap=True)
            self._show_page(Path(results.output))

    def present(self, document: BaseModel, parts: Iterable[Table | RenderableType]) -> None:
        """Print a document: as JSON, or part by part. A line that is plain text is never broken, as paths are in it."""
        self.show_notes()
        if self.json:
            self.print_json(document)
            return
        for part in parts:
            if isinstance(part, Table):
                self.print_table(part)
            elif isinstance(part, str):
                self.out.print(shown(part), soft_wrap=True)
            else:
                self.out.print(part)

    def print_text(self, text: str) -> None:
        """Print text on stdout as it is."""
        self.out.file.write(text)

    def print_json(self, document: BaseModel) -> None:
        """Print one JSON document on stdout."""
        self.print_text(json.dumps(document.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")


def _done(model: ModelResults) -> Iterator[str]:
    """Yield what healers did: a line for each model, and one for each gap."""
    for removal in model.removals:
        if (repaired := removal.models[0].healing) is not None:
            yield f"{removal.label}: {words.recovery(repaired.loss, repaired.accuracy, repaired.recovered)}"
            yield from (f"  {words.gap_line(gap)}" for gap in repaired.gaps)


def _console(stream: Any) -> Console:
    """Make a console as wide as its terminal, or as COLUMNS says."""
    console = Console(file=stream, highlight=False)
    known = console.is_terminal or os.environ.get("COLUMNS", "").isdecimal()
    return console if known else Console(file=stream, highlight=False, width=WIDTH_WITHOUT_TERMINAL)
