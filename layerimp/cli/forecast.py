"""The output of `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp._table import Column, Table
from layerimp.cli.tables import shown
from layerimp.evaluation.cost import LONG
from layerimp.progress import span
from layerimp.report.tables.numbers import between
from layerimp.report.targets import amount

if TYPE_CHECKING:
    from layerimp.cli.display import Screen
    from layerimp.report.forecast_documents import (
        Forecast,
        GridForecast,
        HealingForecast,
        MemoryForecast,
        ModelWork,
        PassForecast,
        Range,
        SizeForecast,
    )


def show(found: Forecast, screen: Screen) -> None:
    """Show a forecast, as a table and lines or as one document."""
    if screen.json:
        screen.print_json(found)
        return
    _sizes(found, screen)
    for line in _lines(found):
        screen.out.print(shown(line), soft_wrap=True)


def _sizes(found: Forecast, screen: Screen) -> None:
    """Show sizes before and after pruning."""
    sizes = {
        "parameters": found["parameters"],
        "bytes, stored": found["bytes"],
        "cache, bytes per token": found["kv_bytes_per_token"],
    }
    known = {name: size for name, size in sizes.items() if size is not None and size["original"]}
    columns = [
        Column("intact", [amount(size["original"]) for size in known.values()]),
        Column("pruned", [_range(size["pruned"]) for size in known.values()]),
        Column("left", [_left(size) for size in known.values()]),
    ]
    parameters = found["parameters"]["pruned"]
    left = [1 - parameters[end] / found["parameters"]["original"] for end in ("most", "least")]
    removed = blocks_and_parameters(found["removed"], found["num_blocks"], {"least": left[0], "most": left[1]})
    title = f"{found['command']} {found['model']}: {removed} would be removed"
    screen.print_table(Table([Column("size", list(known), "left"), *columns], title))


def blocks_and_parameters(blocks: Range, num_blocks: int, parameters: Range) -> str:
    """Show numbers of blocks with their shares of all blocks and of the parameters."""
    share = between(blocks["least"] / num_blocks, blocks["most"] / num_blocks)
    return (
        f"{_range(blocks)} of {num_blocks} blocks ({share}) and "
        f"{between(parameters['least'], parameters['most'])} of the parameters"
    )


def _left(size: SizeForecast) -> str:
    """Return the share of a size that stays."""
    ends = (size["pruned"]["least"] / size["original"], size["pruned"]["most"] / size["original"])
    return " to ".join(dict.fromkeys(f"{end:.1%}" for end in ends))


def _lines(found: Forecast) -> Iterator[str]:
    """Yield the lines for everything except sizes."""
    if found["text"] is not None:
        yield f"text: at most {found['tokens']:,} tokens of {found['text']}"
    yield from map(_pass, found["passes"])
    if found["rescorings"]:
        times = "once" if found["rescorings"] == 1 else f"{found['rescorings']} times"
        yield f"the pruner scores the pruned model again, {times} at most"
    if found["tasks"]:
        models = [*found["scorers"], *found["baselines"]]
        healed = f", each healed by {', '.join(found['healers'])} as well" if found["healers"] else ""
        yield f"quality: {', '.join(found['tasks'])}, of the intact model and those of {', '.join(models)}{healed}"
    yield _memory(found["memory"])
    yield from _times(found)
    yield from _end(found)


def _pass(one: PassForecast) -> str:
    work = "" if one["backbone"] is None else f": as much as {_passes(one['backbone'])} of the blocks"
    work += f" and {one['head']:g} of the head" if one["head"] else ""
    return f"pass {one['sweep']} for {', '.join(one['scorers'])}{work}"


def _times(found: Forecast) -> Iterator[str]:
    """Yield the estimate of the time."""
    times = found["time"]
    parts = [f"scoring {_about(times['scoring_s'])}"] if found["passes"] else []
    parts += [f"scoring again {span(times['rescoring_s'])} at most"] if times["rescoring_s"] else []
    parts += [f"healing {_about(times['healing_s'])}"] if found["healers"] else []
    if found["tasks"]:
        each, whole = times["model_s"], times["evaluation_s"]
        searched = each is not None and whole is None
        parts.append(
            f"evaluation {_about(each)} for each model that is tried" if searched else f"evaluation {_about(whole)}"
        )
    if parts:
        block = f" (one block and batch: {times['block_ms']:,.3g} ms)" if times["block_ms"] else ""
        yield f"time, an estimate: {', '.join(parts)}{block}"
    if (times["evaluation_s"] or times["model_s"] or 0) > LONG:
        yield "--limit measures on fewer documents"


def _about(seconds: float | None) -> str:
    """Format an estimate."""
    return "not known" if seconds is None else f"about {span(seconds)}"


def _memory(memory: MemoryForecast) -> str:
    copy = f", and {gib(memory['verifying'])} to verify a checkpoint" if memory["verifying"] else ""
    at_a_time = " at a time (offloaded)" if memory["offloaded"] else ""
    return (
        f"memory on {memory['device']}: {gib(memory['weights'])} of weights{at_a_time} in {memory['dtype']}{copy}; "
        f"{gib(memory['free'])} are free"
    )


def _end(found: Forecast | HealingForecast | GridForecast) -> Iterator[str]:
    """Yield the files that would be written, and the notes."""
    if found["writes"]:
        yield "would be written:"
    for file in found["writes"]:
        size = "" if file["bytes"] is None else f" ({_range(file['bytes'])} bytes)"
        yield f"  {file['path']}{size}"
    yield from (f"note: {note}" for note in found["notes"])


def show_healing(found: HealingForecast, screen: Screen) -> None:
    """Show a forecast of `heal`, as a table and lines or as one document."""
    if screen.json:
        screen.print_json(found)
        return
    teacher, pruned = found["sizes"]["teacher"], found["sizes"]["pruned"]
    rows = Column("size", ["blocks", "parameters", "bytes, stored"], "left")
    columns = [
        Column(name, [amount(one["blocks"]), amount(one["parameters"]), amount(one["bytes"])])
        for name, one in (("intact", teacher), ("pruned", pruned))
    ]
    title = f"heal {found['model']} beside {found['teacher']}, by {found['healer']}"
    screen.print_table(Table([rows, *columns], title))
    for line in _healing_lines(found):
        screen.out.print(shown(line), soft_wrap=True)


def _healing_lines(found: HealingForecast) -> Iterator[str]:
    yield f"gaps: {'; '.join(found['gaps'])}"
    further = f", and further text of {found['further_text']}" if found["further_text"] else ""
    yield f"text: at most {found['tokens']:,} tokens of {found['text']}{further}"
    yield _memory(found["memory"])
    times = found["time"]
    if times["block_ms"] is None or times["pass_s"] is None:
        yield "time: no estimate, since no block could be timed"
    else:
        passed = f"{span(times['pass_s'])} for each pass of both models over the text"
        block = f"one block and batch: {times['block_ms']:,.3g} ms"
        yield f"time, an estimate: healing {_about(times['healing_s'])}, {passed} ({block})"
    yield from _end(found)


def show_grid(found: GridForecast, screen: Screen) -> None:
    """Show a forecast of `bench`, as a table and lines or as one document."""
    if screen.json:
        screen.print_json(found)
        return
    kinds = list(next(iter(found["models"].values()))["cells"])
    rows = Column("cells", kinds, "left")
    columns = [Column(label, [_cells(work, kind) for kind in kinds]) for label, work in found["models"].items()]
    screen.print_table(Table([rows, *columns], f"grid of {found['repeats']} repeats: finished, of at most"))
    for label, work in found["models"].items():
        for line in _grid_lines(work):
            screen.out.print(shown(f"{label}: {line}"), soft_wrap=True)
    for line in _end(found):
        screen.out.print(shown(line), soft_wrap=True)


def _cells(work: ModelWork, kind: str) -> str:
    return f"{work['cells'][kind]['finished']:,} of {work['cells'][kind]['most']:,}"


def _grid_lines(work: ModelWork) -> Iterator[str]:
    for count, parameters in zip(work["removed"], work["removed_parameters"], strict=True):
        blocks: Range = {"least": count, "most": count}
        yield f"removed: {blocks_and_parameters(blocks, work['num_blocks'], parameters)}"
    yield f"a repeat reads at most {work['tokens']:,} tokens"
    yield from map(_pass, work["passes"])
    yield _memory(work["memory"])
    if work["block_ms"] is None:
        yield "time: no estimate, since no block could be timed"
    else:
        parts = f"scoring {_about(work['scoring_s'])}, evaluation {_about(work['evaluation_s'])} at most"
        yield f"time, an estimate: {parts} (one block and batch: {work['block_ms']:,.3g} ms)"


def _passes(number: float) -> str:
    return "1 forward pass" if number == 1 else f"{number:g} forward passes"


def _range(value: Range) -> str:
    ends = (value["least"], value["most"])
    return " to ".join(dict.fromkeys(map(amount, ends)))


def gib(size: int) -> str:
    """Format a number of bytes in GiB."""
    return f"{size / 2**30:.2f} GiB"
