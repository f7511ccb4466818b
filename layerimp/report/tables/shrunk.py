"""What `layerimp shrink` says of a smaller model: at most 40 lines of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from layerimp._paths import from_here, last_name
from layerimp.pruner import counted
from layerimp.report.tables.fidelity_figures import FIGURES
from layerimp.report.words import beside, measured, number, ranges, share_cell, two_digits

if TYPE_CHECKING:
    from layerimp.report.results.shrunk import HealingStage, ShrinkReport, TaskRetained

WIDTH = 80
LINES = 40
REASONS = 5
"""So many lines of reasons are shown at most."""
TASKS = 6
"""So many tasks are shown at most, and the others counted."""
TEXT_LINES = 4
"""The lines of a prompt and its continuations, with an empty one."""
SHORT = 10
"""So many minutes, or more, are shown in minutes."""
_NAMES, _COLUMN = 24, 18
_FIGURES = ("divergence", "agreement", "copying", "loops")


def lines_of(report: ShrinkReport) -> list[str]:
    """Return the lines on a smaller model, of which only those with its place may be wider than `WIDTH`.

    Reasons, tasks and texts take the room that the rest leaves. If there is too little, targets, stages and failures
    are cut to a line each.
    """
    lines = _lines(report, 2)
    return lines if len(lines) <= LINES else _lines(report, 1)


def _lines(report: ShrinkReport, each: int) -> list[str]:
    """Return the lines, of which a target, a stage or a failure takes so many at most."""
    first, advice = _wrapped(headline(report)), _wrapped(_advice(report))
    table = [_row("", "intact", "small", ""), *_sizes(report, each), *_speeds(report), *_fidelity(report)]
    done, where = ["", *_done(report, each)], list(_where(report))
    room = LINES - sum(map(len, (first, advice, [""], table, done, where))) - bool(report.tasks)
    reasons = _wrapped("; ".join(report.reasons), min(REASONS, max(1, room)))
    lines = [*first, *reasons, *advice, "", *table]
    lines += [*_tasks(report, LINES - len(lines) - len(done) - len(where)), *done]
    texts = list(_texts(report))
    room = max(0, LINES - len(lines) - len(where))
    return [*lines, *texts[: room - room % TEXT_LINES], *where]


def headline(report: ShrinkReport) -> str:
    """Return the first line: the verdict if it is not good, what failed, and what was gained."""
    share = report.removed_share
    name, left = last_name(report.model), f"{report.small.blocks} of {counted(report.intact.blocks)} left"
    gained = [f"{share['parameters']:.1%} fewer parameters"]
    gained += [f"{what.factor:.2f} times as fast in {name}" for name, what in report.speeds.items()]
    verdict = "" if report.verdict == "good" else f"{report.verdict}: "
    if report.failed:
        verdict += f"{', '.join(report.failed)} failed: "
    return f"{verdict}{name} with {left}: {', '.join(gained)}"


def _advice(report: ShrinkReport) -> str:
    return f"what would help: {', '.join(report.advice)}" if report.advice else ""


def _sizes(report: ShrinkReport, each: int) -> Iterator[str]:
    share = report.removed_share
    for name in ("blocks", "parameters", "bytes"):
        intact, small = getattr(report.intact, name), getattr(report.small, name)
        yield _row(name, f"{intact:,}", f"{small:,}", f"-{share[name]:.1%}")
    if report.cache:
        intact, small = report.cache["intact"], report.cache["small"]
        change = f"-{1 - small / intact:.1%}" if intact else ""
        yield _row("cache, bytes per token", f"{intact:,.0f}", f"{small:,.0f}", change)
    for quantity, reached in report.reached.items():
        yield from _wrapped(f"target {beside(quantity, report.targets[quantity], reached)}", each)


def _speeds(report: ShrinkReport) -> Iterator[str]:
    for name, speed in report.speeds.items():
        intact = f"{number(speed.intact)} ± {two_digits(speed.intact_stderr)}"
        small = f"{number(speed.small)} ± {two_digits(speed.small_stderr)}"
        factor = f"×{speed.factor:.2f} ± {two_digits(speed.factor_stderr)}"
        yield _row(f"{name}, tokens/s", intact, small, factor)


def _fidelity(report: ShrinkReport) -> Iterator[str]:
    if report.fidelity is None:
        return
    for name in _FIGURES:
        figure = FIGURES[name]
        value, intact, error = (of(report.fidelity) for of in (figure.of, figure.intact, figure.stderr))
        if value is not None:
            unit, show_error = ("nats", two_digits) if name.startswith("divergence") else ("", figure.show)
            shown = figure.show(value) + ("" if error is None else f" ± {show_error(error)}")
            yield _row(name, "" if intact is None else figure.show(intact), shown, unit)


def _tasks(report: ShrinkReport, room: int) -> list[str]:
    """Return the lines on the first tasks that there is room for, and on how many others there are."""
    lines, left = list[str](), len(report.tasks)
    for task in report.tasks[:TASKS]:
        own = list(_task(task))
        if len(lines) + len(own) + (left > 1) > room:
            break
        lines, left = lines + own, left - 1
    return [*lines, f"and {left} task{'s' * (left > 1)} more (see the report)"] if left else lines


def _task(task: TaskRetained) -> Iterator[str]:
    left = f"{share_cell(task.retained)} left" if task.retained else "at chance"
    yield _row(task.task, measured(task.intact), measured(task.small), left)
    if unknown := [name for name, part in task.intact.parts.items() if part.at_floor]:
        yield from _wrapped(f"(left: without {', '.join(unknown)}, where the intact model is at chance)")


def _done(report: ShrinkReport, each: int) -> Iterator[str]:
    plan = report.plan
    by = f", chosen by {plan.scorer} with {plan.pruner}" if plan.scorer else ""
    if report.tasks and report.recipe["keep"] and report.recipe["keep_of"] == "quality":
        by += "; the tasks are measured on documents that did not choose"
    what = f"block{'s' * (len(plan.blocks) > 1)}"
    yield from _wrapped(f"removed: {what} {ranges(plan.blocks)}{by}", each)
    for stage in report.stages:
        yield from _wrapped(f"{stage.label}: {_outcome(stage)}", each)
    for label, why in report.failures.items():
        yield from _wrapped(f"{label}: failed: {why}", each)


def _outcome(stage: HealingStage) -> str:
    if stage.healing is None:
        return f"failed: {stage.why}"
    if not stage.kept:
        return f"not kept: {stage.why.removeprefix(f'{stage.healer} was taken back: ') or 'it did nothing'}"
    distance = stage.healing.distance
    kinds = {"divergence": "divergence", "repeated": "on repeated rows"}
    changes = (
        f"{words} {distance[f'{kind}_before']:.3g} to {distance[f'{kind}_after']:.3g}"
        for kind, words in kinds.items()
        if f"{kind}_before" in distance
    )
    return "; ".join(filter(None, ("kept", ", ".join(changes), stage.why)))


def _texts(report: ShrinkReport) -> Iterator[str]:
    """Yield two prompts, with how both models continue them."""
    generation = report.fidelity.generation if report.fidelity else None
    for sample in generation.samples[:2] if generation else ():
        yield ""
        yield _cut(f"{'message' if sample.chat else 'prompt'}: {sample.prompt}")
        yield _cut(f"intact: {sample.intact or '(nothing)'}")
        yield _cut(f"small: {sample.text or '(nothing)'}")


def _where(report: ShrinkReport) -> Iterator[str]:
    peak = ", ".join(f"{size / 2**30:.1f} GiB on {device}" for device, size in report.memory.items())
    yield ""
    yield from _wrapped(f"took {_times(report.minutes)}; at most {peak}")
    if report.output is not None:
        place = from_here(report.output)
        yield f"checkpoint, card, plan.json and report.html: {place}"
        yield f"    from transformers import {report.loader}"
        yield f"    model = {report.loader}.from_pretrained({place!r})"


def _times(minutes: Mapping[str, float]) -> str:
    """Return how long all stages took together, and each of them: in seconds if that is short."""
    together = sum(minutes.values())
    unit, times, digits = ("seconds", 60, 0) if together < SHORT else ("minutes", 1, 1)
    parts = ", ".join(f"{name} {times * each:.{digits}f}" for name, each in minutes.items())
    return f"{times * together:.{digits}f} {unit} ({parts})"


def _row(name: str, intact: str, small: str, change: str) -> str:
    """Return a row of the table, in which wide figures take room from the name."""
    figures = f" {intact:>{_COLUMN - 1}} {small:>{_COLUMN - 1}}  {change}".rstrip()
    left = max(0, min(_NAMES, WIDTH - len(figures)))
    return f"{name[:left]:<{left}}{figures}"


def _wrapped(text: str, lines: int = 5) -> list[str]:
    """Return a text in lines, of which there are at most so many."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", max_lines=lines, placeholder=" ...")


def _cut(text: str) -> str:
    plain = " ".join(text.split())
    return plain if cell_len(plain) <= WIDTH else f"{set_cell_size(plain, WIDTH - 3).rstrip()}..."
