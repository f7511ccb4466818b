"""What `layerimp shrink` makes of models, beside 8-bit weights and other tools, from `benchmarks/results/shrink.jsonl`.

    python docs/tools/shrunk.py                 # writes the record and the short table into the pages that hold them
    python docs/tools/shrunk.py --run           # shrinks the starter first, and keeps that
    python docs/tools/shrunk.py FILE...         # keeps the rows in results of `benchmarks/shrink.py` first

A kept row replaces an older one of the same model and draw, made in the same way. A row of layerimp's own holds the
document of `layerimp shrink --json`.
"""

from __future__ import annotations

import html
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import metrics_compared
import pages

from layerimp._paths import last_name
from layerimp.defaults import STARTER, TRAINER
from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.tables.fidelity_figures import FIGURES
from layerimp.report.tables.shrunk import lines_of
from layerimp.report.words import percentage, two_digits

Line = dict[str, Any]
Table = tuple[list[str], list[list[str]]]
"""The head and the rows."""
STORE = pages.ROOT / "benchmarks" / "results" / "shrink.jsonl"
README = pages.ROOT / "README.md"
SHOWN_ON = (README, pages.ROOT / "docs" / "shrink" / "index.md")
TITLE = "Recorded"
OUTPUT = "starter-small"
DEFAULT = "default"
"""How a row was made for which the command had no options."""
NAMES = metrics_compared.TITLES | {STARTER: STARTER}
"""The models, in the order of the tables."""
OTHERS = {"llm-streamline": "LLM-Streamline", "replaceme": "ReplaceMe"}
"""What other tools call themselves, by their names in the results."""
SHARES = "retained", "agreement", "copying"
FIGURE_NAMES = ("prefill", "decoding", "divergence", *SHARES)
SHORT = ["model", "blocks", "parameters", "prefill", "decoding", "retained", "agreement", "minutes", "verdict"]
HEADS = ["model", "made by", "blocks", "parameters", "prefill", "decoding", *SHARES, "divergence"]
TRAININGS = ["model", "blocks", "minutes", "tokens", "rate", "divergence", "repeated", *SHARES]
TEXTS = ["model", "prompt", "the intact model goes on", "the small model goes on"]
_MARKDOWN = re.compile(r"([\\`*_\[\]$])")
_SHORT_TABLE = re.compile(r"(?<=<!-- shrunk -->\n).*?(?=<!-- end -->)", re.DOTALL)
_PATH = re.compile(r"(/[\w.+-]+){2,}/?")
_MINUTES = re.compile(r"([\d.]+) minutes")


def rows() -> list[Line]:
    """Return what was measured: model by model, layerimp's own rows first, by their minutes of training.

    Draws of the same row are one, with the means of the figures and their errors over the draws.
    """
    lines = STORE.read_text("utf-8").splitlines() if STORE.exists() else []
    known = list(map(json.loads, lines))
    draws: dict[tuple[str, str], list[Line]] = {}
    for line in known:
        draws.setdefault((line["model"], line["by"]), []).append(line)
    models = [*NAMES, *(line["model"] for line in known if line["model"] not in NAMES)]
    whole = map(_mean, draws.values())
    return sorted(whole, key=lambda line: (models.index(line["model"]), not ours(line), minutes(line)))


def _mean(draws: list[Line]) -> Line:
    """Return the first of some draws, with the figures of all and their number."""
    means: Line = {"draws": len(draws)}
    for name in FIGURE_NAMES if len(draws) > 1 else ():
        values = [line[name][0] for line in draws if line.get(name)]
        if len(values) == len(draws):
            means[name] = [statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))]
    return draws[0] | means


def ours(line: Line) -> bool:
    """Whether layerimp made the smaller model."""
    return "report" in line


def minutes(line: Line) -> float:
    """Return how long a model was trained; 0 for those of others."""
    if found := _MINUTES.fullmatch(line["by"]):
        return float(found[1])
    return float(line["report"]["minutes"].get(TRAINER, 0.0)) if ours(line) else 0.0


def name_of(line: Line) -> str:
    """Return what pages call the model of a row."""
    return NAMES.get(line["model"], last_name(line["model"]))


def maker(line: Line) -> str:
    """Return how pages say what made the smaller model."""
    by: str = line["by"]
    if not ours(line):
        return OTHERS.get(by, by)
    named = "`shrink`" if by == DEFAULT else f"`shrink`, {by.replace('minutes', 'min')}"
    return named if line["draws"] == 1 else f"{named}, {line['draws']} draws"


def table() -> Table:
    """Return everything that was measured, a row for each smaller model; each model is named once."""
    names = list(map(name_of, rows()))
    return HEADS, [
        [
            "" if n and names[n - 1] == names[n] else names[n],
            maker(line),
            *_removed(line),
            *(_shown(line.get(name), "×{:.2f}") for name in ("prefill", "decoding")),
            *(_shown(line.get(name), "{:.1%}") for name in SHARES),
            _shown(line.get("divergence"), "{:.3g}"),
        ]
        for n, line in enumerate(rows())
    ]


def short() -> Table:
    """Return a row for each model: what the command makes of it by default, or with the most minutes."""
    return SHORT, [
        [
            name_of(line),
            *_removed(line),
            *(_shown(line.get(name), "×{:.2f}", error=False) for name in ("prefill", "decoding")),
            *(_shown(line.get(name), "{:.1%}") for name in ("retained", "agreement")),
            f"{minutes(line):.2g}",
            line["report"]["verdict"],
        ]
        for line in defaults()
    ]


def trainings() -> Table:
    """Return a row for each training that was kept: its length and rate, and what it did to both distances."""
    body = []
    for line in rows():
        if numbers := _numbers(line):
            amount = (f"{minutes(line):.2g}", f"{numbers['tokens']:,.0f}", f"{numbers['rate']:.0e}")
            distances = (_change(numbers, name) for name in ("divergence", "repeated"))
            shares = (_shown(line.get(name), "{:.1%}") for name in SHARES)
            body.append([name_of(line), f"-{line['blocks']:.0%}", *amount, *distances, *shares])
    return TRAININGS, body


def _numbers(line: Line) -> dict[str, float]:
    """Return the numbers of a training that was kept; none for other rows."""
    stages = line["report"]["stages"] if ours(line) else ()
    gaps = [stage["healing"]["gaps"] for stage in stages if stage["label"] == TRAINER and stage["kept"]]
    return dict(gaps[0][0]["numbers"]) if gaps else {}


def _change(numbers: dict[str, float], name: str) -> str:
    """Show a distance before and after a training; nothing if there is none, as for a classifier."""
    ends = [numbers.get(f"{name}_{when}") for when in ("before", "after")]
    return " → ".join(f"{end:.3g}" for end in ends if end is not None)


def defaults() -> list[Line]:
    """Return the row of each model that is nearest to what the command does by default."""
    known = {line["model"]: line for line in rows() if ours(line)}  # the last one was trained longest
    return list((known | {line["model"]: line for line in rows() if line["by"] == DEFAULT}).values())


def _removed(line: Line) -> list[str]:
    return [f"-{line[what]:.1%}" if line[what] else "" for what in ("blocks", "parameters")]


def _shown(value: list[float | None] | None, form: str, error: bool = True) -> str:
    """Show a figure with its standard error, if it has one."""
    if value is None or value[0] is None:
        return ""
    shown, stderr = form.format(value[0]), value[1]
    if stderr is None or not error:
        return shown
    return f"{shown} ± {percentage(stderr) if '%' in form else two_digits(stderr)}"


def continuations() -> Table:
    """Return the heads of a table, and for each model of the short table a prompt with what both models write."""
    return TEXTS, [[name_of(line), *map(_plain, texts)] for line in defaults() for texts in _texts(_report(line))]


def _texts(report: ShrinkReport) -> Iterator[list[str]]:
    generation = report.fidelity.generation if report.fidelity else None
    for sample in generation.samples[:1] if generation else ():
        yield [sample.prompt, sample.intact or "(nothing)", sample.text or "(nothing)"]


def _plain(text: str) -> str:
    """Return a text in Markdown that shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _report(line: Line) -> ShrinkReport:
    return ShrinkReport.model_validate(line["report"])


def record() -> ShrinkReport:
    """Return the document of the starter, as the command makes it without options."""
    (line,) = (line for line in rows() if (line["model"], line["by"]) == (STARTER, DEFAULT))
    return _report(line)


def with_record(page: str) -> str:
    """Return a page whose block `Recorded` holds what the recorded run printed, and with the short table, if any."""
    shown = "\n".join(lines_of(record().model_copy(update={"output": OUTPUT}))) + "\n"
    (block,) = (found for found in pages.FENCE.finditer(page) if found[2] == TITLE)
    page = f"{page[: block.start(3)]}{shown}{page[block.end(3) :]}"
    head, body = short()
    table = "".join(f"|{'|'.join(cells)}|\n" for cells in (head, ["---"] * len(head), *body))
    return _SHORT_TABLE.sub(lambda _: table, page)


def of_report(report: ShrinkReport) -> Line:
    """Return the figures of layerimp's own row, as `benchmarks/shrink.py` keeps them."""
    fidelity, worst = report.fidelity, report.retained and report.retained.worst
    line: Line = {what: report.removed_share[what] for what in ("blocks", "parameters")}
    line |= {name: [speed.factor, speed.factor_stderr] for name, speed in report.speeds.items()}
    line["retained"] = worst and [worst.mean, worst.stderr]
    if fidelity is not None:
        divergence, copying = fidelity.divergence, FIGURES["copying"]
        before, after = copying.intact(fidelity), copying.of(fidelity)
        line["divergence"] = divergence and [divergence.mean, divergence.stderr]
        line["agreement"] = [fidelity.agreement, fidelity.agreement_stderr]
        line["copying"] = [after / before, None] if before and after is not None else None
    return line


def shrink_again() -> Line:
    """Shrink the starter as the pages say, and return the row."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "layerimp", "shrink", "--json"]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    report = ShrinkReport.model_validate_json(done.stdout)
    line = {"setting": "", "model": STARTER, "by": DEFAULT, "seed": 0, **of_report(report)}
    return line | {"report": report.model_dump(mode="json")}


def keep(lines: Iterable[Line]) -> None:
    """Add rows to those that are kept, without the folders of this machine."""
    old = STORE.read_text("utf-8").splitlines() if STORE.exists() else []
    known = {(line["model"], line["by"], line["seed"]): line for line in map(json.loads, old)}
    known |= {(line["model"], line["by"], line["seed"]): without_folders(line) for line in lines}
    STORE.write_text("".join(json.dumps(line) + "\n" for line in known.values()), encoding="utf-8")


def without_folders(value: Any) -> Any:
    """Return a value of JSON with the last part alone of each absolute path."""
    if isinstance(value, dict):
        return {name: without_folders(each) for name, each in value.items()}
    if isinstance(value, list):
        return list(map(without_folders, value))
    return Path(value).name if isinstance(value, str) and _PATH.fullmatch(value) else value


def main() -> None:
    """Bring the pages up to date."""
    for given in sys.argv[1:]:
        keep([shrink_again()] if given == "--run" else map(json.loads, Path(given).read_text("utf-8").splitlines()))
    for page in SHOWN_ON:
        page.write_text(with_record(page.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
