"""Shows on pages what `layerimp shrink` says of models, as it was recorded in `benchmarks/results/shrink`.

python docs/tools/shrunk.py                    # writes the recorded output for the starter into the pages
python docs/tools/shrunk.py --run              # shrinks the starter again first, and records that

The document of another model (`layerimp shrink MODEL --json`) in the same folder is a further row of the table, and its
texts stand below it.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pages
from distances import NAMES

from layerimp._paths import last_name
from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.tables.fidelity_figures import FIGURES
from layerimp.report.tables.shrunk import lines_of
from layerimp.report.words import share_cell, two_digits

RECORDS = pages.ROOT / "benchmarks" / "results" / "shrink"
RECORD = RECORDS / "starter.json"
SHOWN_ON = (pages.ROOT / "README.md", pages.ROOT / "docs" / "shrink" / "index.md")
TITLE = "Recorded"
OUTPUT = "starter-small"
HEADS = ["", "blocks", "parameters", "prefill", "decoding", "retained", "agreement", "divergence"]
TEXTS = ["prompt", "the intact model goes on", "the small model goes on"]
_MARKDOWN = re.compile(r"([\\`*_\[\]$])")


def reports() -> list[ShrinkReport]:
    """Return every document that is kept, the starter's first."""
    files = sorted(RECORDS.glob("*.json"), key=lambda path: (path != RECORD, path.name))
    return [ShrinkReport.model_validate_json(path.read_text("utf-8")) for path in files]


def table() -> tuple[list[str], list[list[str]]]:
    """Return the heads of the table, and a row for each model: its size, its speed, and what is retained."""
    return HEADS, [_row(report) for report in reports()]


def _row(report: ShrinkReport) -> list[str]:
    speeds = [
        f"×{speed.factor:.2f} ± {two_digits(speed.factor_stderr)}"
        for speed in map(report.speeds.get, ("prefill", "decoding"))
        if speed is not None
    ]
    fidelity = report.fidelity
    figures = [FIGURES[name] for name in ("agreement", "divergence")]
    values = [(figure, figure.of(fidelity) if fidelity else None) for figure in figures]
    return [
        _name(report),
        f"{report.small.blocks} of {report.intact.blocks}",
        f"-{report.removed_share['parameters']:.1%}",
        *speeds,
        *[""] * (2 - len(speeds)),
        str(share_cell(report.retained.worst if report.retained else None)),
        *("" if value is None else figure.show(value) for figure, value in values),
    ]


def continuations() -> tuple[list[str], list[list[str]]]:
    """Return the heads of a table, and the prompts of all models with what both models write."""
    return TEXTS, [[_plain(text) for text in texts] for report in reports() for texts in _texts(report)]


def _texts(report: ShrinkReport) -> Iterator[list[str]]:
    generation = report.fidelity.generation if report.fidelity else None
    for sample in generation.samples[:2] if generation else ():
        yield [sample.prompt, sample.intact or "(nothing)", sample.text or "(nothing)"]


def _name(report: ShrinkReport) -> str:
    name = last_name(report.model)
    return NAMES.get(name, name)


def _plain(text: str) -> str:
    """Return a text in Markdown that shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def recorded() -> str:
    """What the recorded run printed, but for the folder that it ran in."""
    report = ShrinkReport.model_validate_json(RECORD.read_text("utf-8"))
    return "\n".join(lines_of(report.model_copy(update={"output": OUTPUT}))) + "\n"


def with_record(page: str) -> str:
    """Return a page whose block `Recorded` holds the record."""
    (block,) = (found for found in pages.FENCE.finditer(page) if found[2] == TITLE)
    return f"{page[: block.start(3)]}{recorded()}{page[block.end(3) :]}"


def shrink_again() -> None:
    """Shrink the starter as the pages say, and keep the document."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "layerimp", "shrink", "--json"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    document = json.loads(done.stdout) | {"output": None}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Bring the pages up to date."""
    if sys.argv[1:] == ["--run"]:
        shrink_again()
    for page in SHOWN_ON:
        page.write_text(with_record(page.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
