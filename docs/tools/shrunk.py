"""What `layerimp shrink` makes of models, beside 8-bit weights and other tools, from `benchmarks/results/shrink.jsonl`.

    python docs/tools/shrunk.py                 # writes the record and the short table into the pages that hold them
    python docs/tools/shrunk.py --run           # shrinks the starter first, five times, and keeps that
    python docs/tools/shrunk.py FILE...         # keeps the rows in results of `benchmarks/shrink.py` first

A kept row replaces an older one of the same model, setting and draw, made in the same way; a model made in one way has
one setting. A row of layerimp's own holds the document of `layerimp shrink --json`.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pages
from titles import TITLES

sys.path.append(str(pages.ROOT / "benchmarks"))
from shrunk_figures import of_report

from layerimp._paths import last_name, tree_without_folders
from layerimp.defaults import STARTER, TRAINER
from layerimp.report.results.shrunk import ShrinkReport
from layerimp.report.tables.shrunk import lines_of
from layerimp.report.words import percentage, two_digits

Line = dict[str, Any]
Table = tuple[list[str], list[list[str]]]
"""The head and the rows."""
STORE = pages.ROOT / "benchmarks" / "results" / "shrink.jsonl"
UNHEALED = STORE.with_name("unhealed_texts.jsonl")
"""The results of `unhealed_texts.py`."""
README = pages.ROOT / "README.md"
SHOWN_ON = (README, pages.ROOT / "docs" / "shrink" / "index.md")
TITLE = "Recorded"
OUTPUT = "./starter-small"
DRAWS = 5
"""How many draws of text the starter's row is the mean of; its record is of the first."""
DEFAULT = "default"
"""How a row was made for which the command had no options."""
NAMES = TITLES | {STARTER: STARTER}
"""The models, in the order of the tables."""
OTHERS = {"llm-streamline": "LLM-Streamline", "replaceme": "ReplaceMe"}
"""What other tools call themselves, by their names in the results."""
SHARES = "retained", "agreement", "copying"
SPEEDS = "prefill", "decoding"
FIGURE_NAMES = (*SPEEDS, "divergence", *SHARES)
SHORT = ["model", "blocks", "parameters", *SPEEDS, "retained", "agreement", "looping texts", "minutes"]
HEADS = ["model", "made by", "blocks", "parameters", *SPEEDS, *SHARES, "divergence"]
TRAININGS = ["model", "blocks", "minutes", "tokens", "rate", "divergence", "repeated", *SHARES]
TEXTS = ["model", "prompt", "the intact model goes on", "without the blocks", "the small model goes on"]
_MARKDOWN = re.compile(r"([\\`*_\[\]$])")
_SHORT_TABLE = re.compile(r"(?<=<!-- shrunk -->\n).*?(?=<!-- end -->)", re.DOTALL)
_PATH = re.compile(r"(/[\w.+-]+){2,}/?")
_MINUTES = re.compile(r"([\d.]+) minutes")


def rows() -> list[Line]:
    """Return what was measured: model by model, layerimp's own rows first, by their minutes of training.

    Draws of the same row are one, with the means of the figures and their errors over the draws, and all `draws`.

    Raises:
        ValueError: draws of a row were measured in different settings.
    """
    known = stored()
    models = [*NAMES, *(line["model"] for line in known if line["model"] not in NAMES)]
    whole = map(_mean, draws_of(known))
    return sorted(whole, key=lambda line: (models.index(line["model"]), not ours(line), minutes(line)))


def stored() -> list[Line]:
    """Return the rows that are kept, each draw by itself."""
    return list(map(json.loads, STORE.read_text("utf-8").splitlines())) if STORE.exists() else []


def draws_of(lines: Iterable[Line]) -> list[list[Line]]:
    """Return the draws of each row: of the same model, made in the same way.

    Raises:
        ValueError: they were measured in different settings, such as another ratio.
    """
    draws: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        draws.setdefault((line["model"], line["by"]), []).append(line)
    for (model, by), own in draws.items():
        if len(settings := sorted({line["setting"] for line in own})) > 1:
            raise ValueError(
                f"{STORE.name} holds each row in one setting, and {model}, {by} has the settings "
                f"{', '.join(map(repr, settings))}: keep only rows of one"
            )
    return list(draws.values())


def _mean(draws: list[Line]) -> Line:
    """Return a row of all its draws: the means of the figures that each has, and None for others.

    What is measured on documents or rows has their error too: all draws are measured on the same. A speed is timed
    anew for each draw.
    """
    whole = draws[0] | {"draws": draws}
    if len(draws) == 1:
        return whole
    whole |= {name: _average(line[name] for line in draws) for name in ("blocks", "parameters")}
    for name in FIGURE_NAMES:
        values = [(line.get(name) or [None])[0] for line in draws]
        if (mean := _average(values)) is None:
            whole[name] = None
            continue
        error = statistics.stdev(values) / math.sqrt(len(values))
        if name not in SPEEDS and (shared := _average(line[name][1] for line in draws)) is not None:
            error = math.hypot(error, shared)
        whole[name] = [mean, error]
    return whole


def _average(values: Iterable[float | None]) -> float | None:
    """Return the mean; None if a value is missing."""
    known = list(values)
    return None if None in known else statistics.mean(value for value in known if value is not None)


def ours(line: Line) -> bool:
    """Whether layerimp made the smaller model."""
    return "report" in line


def minutes(line: Line) -> float:
    """Return how long a model was trained; 0 for those of others."""
    if trained := _MINUTES.fullmatch(line["by"]):
        return float(trained[1])
    return float(line["report"]["minutes"].get(TRAINER, 0.0)) if ours(line) else 0.0


def name_of(line: Line) -> str:
    """Return what pages call the model of a row."""
    return NAMES.get(line["model"], last_name(line["model"]))


def maker(line: Line) -> str:
    """Return how pages say what made the smaller model."""
    by: str = line["by"]
    if not ours(line):
        return OTHERS.get(by, by)
    return "`shrink`" if by == DEFAULT else f"`shrink`, {by.replace('minutes', 'min')}"


def _draws(line: Line) -> str:
    return f", {count} draws" if (count := len(line["draws"])) > 1 else ""


def table() -> Table:
    """Return everything that was measured, a row for each smaller model; each model is named once."""
    names = list(map(name_of, rows()))
    return HEADS, [
        [
            "" if n and names[n - 1] == names[n] else names[n],
            f"{maker(line)}{_draws(line)}",
            *_removed(line),
            *(_shown(line.get(name), "×{:.2f}") for name in SPEEDS),
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
            *(_shown(line.get(name), "×{:.2f}", error=False) for name in SPEEDS),
            *(_shown(line.get(name), "{:.1%}") for name in ("retained", "agreement")),
            _loops(line),
            f"{minutes(line):.2g}",
        ]
        for line in defaults()
    ]


def _loops(line: Line) -> str:
    """Show the share of texts that end in a loop, of the intact and of the small model; nothing of some draws alone."""
    fidelities = [draw["report"]["fidelity"] or {} for draw in line["draws"]]
    texts = [fidelity["generation"] for fidelity in fidelities if fidelity.get("generation")]
    if len(texts) < len(line["draws"]):
        return ""
    return " → ".join(f"{statistics.mean(each[name] for each in texts):.0%}" for name in ("intact_loops", "loops"))


def trainings() -> Table:
    """Return a row for each training that was kept: its length and rate, and what it did to both distances.

    Of several draws, the row has the means and the range of rates; a cell is empty if some draw has no such number.
    """
    body = []
    for line in rows():
        numbers = list(map(_numbers, line["draws"]))
        if any(numbers):
            amount = [f"{minutes(line):.2g}", _averages(numbers, "tokens", "{:,.0f}"), _rates(numbers)]
            distances = (_change(numbers, name) for name in ("divergence", "repeated"))
            shares = (_shown(line.get(name), "{:.1%}") for name in SHARES)
            body.append([name_of(line), f"-{line['blocks']:.0%}", *amount, *distances, *shares])
    return TRAININGS, body


def _numbers(line: Line) -> dict[str, float]:
    """Return the numbers of a training that was kept; none for other rows."""
    stages = line["report"]["stages"] if ours(line) else ()
    gaps = [stage["healing"]["gaps"] for stage in stages if stage["label"] == TRAINER and stage["kept"]]
    return dict(gaps[0][0]["numbers"]) if gaps else {}


def _averages(numbers: list[dict[str, float]], name: str, form: str) -> str:
    """Show the mean of a number over the draws; nothing if one of them has none."""
    mean = _average(draw.get(name) for draw in numbers)
    return "" if mean is None else form.format(mean)


def _rates(numbers: list[dict[str, float]]) -> str:
    """Show the lowest and the highest rate of the draws, once if both look alike; nothing if a draw has none."""
    if not all(numbers):
        return ""
    rates = [draw["rate"] for draw in numbers]
    return " to ".join(dict.fromkeys(f"{end:.0e}" for end in (min(rates), max(rates))))


def _change(numbers: list[dict[str, float]], name: str) -> str:
    """Show a distance before and after a training; nothing if there is none, as for a classifier."""
    ends = [_averages(numbers, f"{name}_{when}", "{:.3g}") for when in ("before", "after")]
    return " → ".join(ends) if all(ends) else ""


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
    """Return the heads of a table, and for each model of the short table a prompt with what models write."""
    unhealed = {
        (line["model"], line["prompt"], tuple(line["blocks"])): line["text"]
        for line in map(json.loads, UNHEALED.read_text("utf-8").splitlines())
    }
    rows = []
    for line in defaults():
        report = report_of(line)
        generation = report.fidelity.generation if report.fidelity else None
        for sample in generation.samples[:1] if generation else ():
            pruned = unhealed.get((line["model"], sample.prompt, tuple(report.plan.blocks)), "")
            texts = [sample.prompt, *(text or "(nothing)" for text in (sample.intact, pruned, sample.text))]
            rows.append([name_of(line), *map(_plain, texts)])
    return TEXTS, rows


def _plain(text: str) -> str:
    """Return a text in Markdown that shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def report_of(line: Line) -> ShrinkReport:
    """Return the document of a row of layerimp's own."""
    return ShrinkReport.model_validate(line["report"])


def record() -> ShrinkReport:
    """Return the document of the starter, as the command makes it without options."""
    (line,) = (line for line in rows() if (line["model"], line["by"]) == (STARTER, DEFAULT))
    return report_of(line)


def with_record(page: str) -> str:
    """Return a page whose block `Recorded` holds what the recorded run printed, and with the short table, if any."""
    shown = "\n".join(lines_of(record().model_copy(update={"output": OUTPUT}))) + "\n"
    (block,) = (fence for fence in pages.FENCE.finditer(page) if fence[2] == TITLE)
    page = f"{page[: block.start(3)]}{shown}{page[block.end(3) :]}"
    head, body = short()
    table = "".join(f"|{'|'.join(cells)}|\n" for cells in (head, ["---"] * len(head), *body))
    return _SHORT_TABLE.sub(lambda _: table, page)


def shrink_again(seed: int) -> Line:
    """Shrink the starter on one thread, otherwise as the pages say, by a draw of text; return the row."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "layerimp", "shrink", "--json", "--seed", str(seed)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=one_thread, stdout=subprocess.PIPE, check=True)
    report = ShrinkReport.model_validate_json(done.stdout)
    line = {"setting": "", "model": STARTER, "by": DEFAULT, "seed": seed, **of_report(report)}
    return line | {"report": report.model_dump(mode="json")}


def keep(lines: Iterable[Line]) -> None:
    """Add rows to those that are kept, without the folders of this machine.

    Raises:
        ValueError: a row is kept in another setting; nothing is written.
    """
    new = (tree_without_folders(line, _without_folder) for line in lines)
    known = {tuple(line[key] for key in ("model", "by", "setting", "seed")): line for line in (*stored(), *new)}
    draws_of(known.values())
    STORE.write_text("".join(json.dumps(line) + "\n" for line in known.values()), encoding="utf-8")


def _without_folder(text: str) -> str:
    """Return the last part of an absolute path, and any other text as it is."""
    return Path(text).name if _PATH.fullmatch(text) else text


def main() -> None:
    """Bring the pages up to date."""
    for given in sys.argv[1:]:
        again = given == "--run"
        keep(map(shrink_again, range(DRAWS)) if again else map(json.loads, Path(given).read_text("utf-8").splitlines()))
    for page in SHOWN_ON:
        page.write_text(with_record(page.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
