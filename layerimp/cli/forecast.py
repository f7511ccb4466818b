"""The output of `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerimp._table import Column, Table
from layerimp.evaluation.cost import LONG
from layerimp.pipeline.forecast_parts import Range
from layerimp.progress import span
from layerimp.report.words import amount, between

if TYPE_CHECKING:
    from layerimp.bench.forecast import GridForecast, ModelWork
    from layerimp.pipeline.forecast import Forecast
    from layerimp.pipeline.forecast_parts import MemoryForecast, PassForecast
    from layerimp.pipeline.heal_forecast import HealingForecast


def of_run(forecast: Forecast) -> Iterator[Table | str]:
    """Yield a table and lines that show a forecast of `run` or `prune`."""
    yield _sizes(forecast)
    if forecast.text is not None:
        yield f"text: at most {forecast.tokens:,} tokens of {forecast.text}"
    yield from map(_pass, forecast.passes)
    if forecast.rescorings:
        times = "once" if forecast.rescorings == 1 else f"{forecast.rescorings} times"
        yield f"the pruner scores the pruned model again, {times} at most"
    if forecast.tasks and forecast.command == "shrink":
        yield f"quality: {', '.join(forecast.tasks)}, of the intact and of the smaller model"
    elif forecast.tasks:
        models = [*forecast.scorers, *forecast.baselines]
        pruned = f"those of {', '.join(models)}" if models else "the one without the named blocks"
        healed = f", each healed by {', '.join(forecast.healers)} as well" if forecast.healers else ""
        yield f"quality: {', '.join(forecast.tasks)}, of the intact model and {pruned}{healed}"
    yield _memory(forecast.memory)
    yield from _times(forecast)
    yield from _notes(forecast.notes)


def of_healing(forecast: HealingForecast) -> Iterator[Table | str]:
    """Yield a table and lines that show a forecast of `heal`."""
    yield _healed_sizes(forecast)
    yield f"gaps: {'; '.join(forecast.gaps)}"
    further = f", and further text of {forecast.further_text}" if forecast.further_text else ""
    yield f"text: at most {forecast.tokens:,} tokens of {forecast.text}{further}"
    yield _memory(forecast.memory)
    times = forecast.time
    each = f"{_about(times.pass_s)} for each pass of both models over the text"
    yield _time([f"healing {_about(times.healing_s)}", each], times.block_ms)
    yield from _notes(forecast.notes)


def of_grid(forecast: GridForecast) -> Iterator[Table | str]:
    """Yield a table and lines that show a forecast of `bench`, the lines of each model behind its label."""
    yield _cells(forecast)
    for label, work in forecast.models.items():
        yield from (f"{label}: {line}" for line in _work(work))
    yield from _notes(forecast.notes)


def _sizes(forecast: Forecast) -> Table:
    """Return a table of the sizes before and after pruning."""
    sizes = {
        "parameters": forecast.parameters,
        "bytes, stored": forecast.bytes,
        "cache, bytes per token": forecast.kv_bytes_per_token,
    }
    known = {name: size for name, size in sizes.items() if size is not None and size.original}
    columns = [
        Column("intact", [amount(size.original) for size in known.values()]),
        Column("pruned", [_range(size.pruned) for size in known.values()]),
        Column("left", [between(size.left.least, size.left.most) for size in known.values()]),
    ]
    left = forecast.parameters.left
    removed = _removed(forecast.removed, forecast.num_blocks, Range(least=1 - left.most, most=1 - left.least))
    title = f"{forecast.command} {forecast.model}: {removed} would be removed"
    return Table([Column("size", list(known), "left"), *columns], title)


def _removed(blocks: Range, num_blocks: int, parameters: Range) -> str:
    """Show numbers of blocks with their shares of all blocks and of the parameters."""
    share = between(blocks.least / num_blocks, blocks.most / num_blocks)
    return (
        f"{_range(blocks)} of {num_blocks} blocks ({share}) and "
        f"{between(parameters.least, parameters.most)} of the parameters"
    )


def _pass(shared: PassForecast) -> str:
    work = "" if shared.backbone is None else f": as much as {_passes(shared.backbone)} of the blocks"
    work += f" and {shared.head:g} of the head" if shared.head else ""
    return f"pass {shared.sweep} for {', '.join(shared.scorers)}{work}"


def _times(forecast: Forecast) -> Iterator[str]:
    """Yield the estimate of the time."""
    times = forecast.time
    parts = [f"scoring {_about(times.scoring_s)}"] if forecast.passes else []
    parts += [f"scoring again {span(times.rescoring_s)} at most"] if times.rescoring_s else []
    parts += [f"healing {_about(times.healing_s)}"] if forecast.healers else []
    if forecast.tasks:
        each, whole = times.model_s, times.evaluation_s
        searched = each is not None and whole is None
        parts.append(
            f"evaluation {_about(each)} for each model that is tried" if searched else f"evaluation {_about(whole)}"
        )
    parts += [f"fidelity {_about(times.fidelity_s)}"] if times.fidelity_s else []
    if parts:
        yield _time(parts, times.block_ms)
    if (times.evaluation_s or times.model_s or 0) > LONG:
        yield "--limit measures on fewer documents"


def _about(seconds: float | None) -> str:
    """Format an estimate."""
    return "not known" if seconds is None else f"about {span(seconds)}"


def _memory(memory: MemoryForecast) -> str:
    copy = f", and {gib(memory.verifying)} to verify a checkpoint" if memory.verifying else ""
    at_a_time = " at a time (offloaded)" if memory.offloaded else ""
    return (
        f"memory on {memory.device}: {gib(memory.weights)} of weights{at_a_time} in {memory.dtype}{copy}; "
        f"{gib(memory.free)} are free"
    )


def _notes(notes: list[str]) -> Iterator[str]:
    yield from (f"note: {note}" for note in notes)


def _healed_sizes(forecast: HealingForecast) -> Table:
    """Return a table of the sizes of both models."""
    sizes = {"intact": forecast.sizes.teacher, "pruned": forecast.sizes.pruned}
    columns = [
        Column(name, [amount(size.blocks), amount(size.parameters), amount(size.bytes)]) for name, size in sizes.items()
    ]
    title = f"heal {forecast.model} beside {forecast.teacher}, by {forecast.healer}"
    return Table([Column("size", ["blocks", "parameters", "bytes, stored"], "left"), *columns], title)


def _cells(forecast: GridForecast) -> Table:
    """Return a table of the cells of each model."""
    kinds = list(next(iter(forecast.models.values())).cells)
    columns = [
        Column(label, [f"{work.cells[kind].finished:,} of {work.cells[kind].most:,}" for kind in kinds])
        for label, work in forecast.models.items()
    ]
    title = f"grid of {forecast.repeats} repeats: finished, of at most"
    return Table([Column("cells", kinds, "left"), *columns], title)


def _work(work: ModelWork) -> Iterator[str]:
    for count, parameters in zip(work.removed, work.removed_parameters, strict=True):
        yield f"removed: {_removed(Range.of(count), work.num_blocks, parameters)}"
    yield f"a repeat reads at most {work.tokens:,} tokens"
    yield from map(_pass, work.passes)
    yield _memory(work.memory)
    yield _time([f"scoring {_about(work.scoring_s)}", f"evaluation {_about(work.evaluation_s)} at most"], work.block_ms)


def _time(parts: list[str], block_ms: float | None) -> str:
    """Return the line for estimated times, of which nothing is known if no block could be timed."""
    if block_ms is None:
        return "time: no estimate, since no block could be timed"
    return f"time, an estimate: {', '.join(parts)} (one block and batch: {block_ms:,.3g} ms)"


def _passes(number: float) -> str:
    return "1 forward pass" if number == 1 else f"{number:g} forward passes"


def _range(value: Range) -> str:
    return " to ".join(dict.fromkeys((amount(value.least), amount(value.most))))


def gib(size: int) -> str:
    """Format a number of bytes in GiB."""
    return f"{size / 2**30:.2f} GiB"
