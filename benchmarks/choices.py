r"""The blocks that methods choose, healed alike, by how far the models then are from the intact one.

    python benchmarks/choices.py --model DIR --count 4 --count 7 --calibration C4.jsonl --text OTHER.jsonl \
        --results FILE

Each method chooses on several draws of calibration text, the healer `linear` repairs the model on the same text, and
both models are compared with the intact one on rows of another text, the same for all; with --tasks also by what they
retain of tasks, and with --minutes after a training by `distill` as well. A plan for fewer blocks is the start of the
longest one, but for windows; equal choices are measured once. Finished runs are kept in --results, a JSON line for
each, so that the same command continues.

With --pairs the choices in --results are healed and measured once more, and the file keeps by how much more one method
retains than another: over all draws, and document by document, as `layerimp bench` compares scorers.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import options as o
import typer
from finished import Finished, Line, lines_in

import layerimp
from layerimp.cache.unfinished import Unfinished
from layerimp.cli.display import Screen
from layerimp.metric import Key, Metric, by_key
from layerimp.pipeline.prepare import prepare
from layerimp.pipeline.pruning import prune_by_amount
from layerimp.pipeline.run import Run, StageResults
from layerimp.recipe import Permissions
from layerimp.report.paired_bootstrap import difference
from layerimp.report.results.measures import Measured
from layerimp.report.retained import counting, summed_up

SEARCH = {"pruner": {"name": "greedy", "options": {"rescored": 3}}}
METHODS: dict[str, dict[str, Any]] = {
    "divergence, greedy": {"scorers": ["divergence"], **SEARCH},
    "block-influence": {"scorers": ["block-influence"]},
    "perplexity, greedy": {"scorers": ["perplexity"], "pruner": {"name": "greedy", "options": {"rows": 16}}},
    "avss": {"scorers": ["avss"]},
    "avss-delta": {"scorers": ["avss-delta"]},
    "divergence": {"scorers": ["divergence"]},
    "perplexity": {"scorers": ["perplexity"]},
    "angular, window": {"scorers": ["angular"], "pruner": "window"},
    "relative-magnitude": {"scorers": ["relative-magnitude"]},
    "cim": {"scorers": ["cim"]},
    "gbis": {"scorers": ["gbis"]},
    "lrp": {"scorers": ["lrp"]},
    "taylor": {"scorers": ["taylor"]},
    "depth": {"scorers": ["depth"]},
    "random": {"scorers": ["random"]},
}
"""What chooses the blocks, as parts of a recipe."""
STATES = {"": "unhealed", "linear": "healed", "distill": "trained"}
"""What a line calls the models, by the healer; only a line with training has the last one."""
Metrics = Mapping[str, Mapping[str, Measured]]
"""A model's metrics, by task and name."""
COMPARED = "divergence, greedy", "avss"
"""The methods that are compared with all others by documents: the recommended one, and that of the paper."""


def parts_of(method: str, seed: int, count: int) -> dict[str, Any]:
    """Return the parts of a recipe by which a method chooses so many blocks on a draw of text."""
    parts = METHODS[method]
    options = {"random": {"seed": seed}, "angular, window": {"window": count}}.get(method)
    if options is None:
        return parts
    (name,) = parts["scorers"]
    return {**parts, "scorers": {name: {"name": name, "options": options}}}


def chosen(recipe: Mapping[str, Any], parts: Mapping[str, Any]) -> list[int]:
    """Return the blocks that a method chooses, the first to go first."""
    unmeasured = {"baselines": [], "tasks": [], "evaluators": []}
    results = layerimp.run(layerimp.Recipe.model_validate({**recipe, **unmeasured, **parts}), progress=Screen())
    (removal,) = results.model.removals
    return [int(block) for block in removal.models[0].blocks]


def without(recipe: Mapping[str, Any], blocks: list[int]) -> layerimp.Recipe:
    """Return the recipe that removes given blocks, and nothing else."""
    named = {"baselines": [], "scorers": ["depth"], "blocks": blocks, "count": len(blocks)}
    return layerimp.Recipe.model_validate({**recipe, **named})


def measured(recipe: Mapping[str, Any], blocks: list[int]) -> Line:
    """Remove blocks, heal as the recipe says, and compare; return each model's fidelity, and what it retains."""
    results = layerimp.run(without(recipe, blocks), progress=Screen())
    line: Line = {}
    for removal in results.model.removals:
        model = removal.models[0]
        assert model.fidelity is not None
        retained = removal.retained and removal.retained.model_dump(mode="json") | {
            "parts": by_part(results.model.metrics, model.metrics)
        }
        line[STATES[removal.healer]] = model.fidelity.model_dump(mode="json") | {"retained": retained}
    return line


def by_part(intact: Metrics, pruned: Metrics) -> dict[str, float]:
    """Return the share that is retained of each task of a group, without those that the intact model does not know."""
    shares = {}
    for group, metrics in intact.items():
        for name, metric in metrics.items():
            for task, part in metric.parts.items():
                if not part.at_floor:
                    nothing = part.floor or 0.0
                    shares[task] = (pruned[group][name].parts[task].value - nothing) / (part.value - nothing)
    return shares


def with_documents(recipe: Mapping[str, Any], blocks: list[int]) -> StageResults:
    """Remove blocks, heal as the recipe says, and return the metrics with the values of the documents."""
    prepared = prepare("run", without(recipe, blocks), Permissions(), Screen())
    with Unfinished() as unfinished:
        return prune_by_amount(Run.of(prepared, None, unfinished))


def by_documents(recipe: Mapping[str, Any], lines: list[Line]) -> Iterator[Line]:
    """Yield by how much more one method retains than another, before the correction for the number of comparisons.

    Args:
        recipe: What heals and measures.
        lines: The choices of so many blocks, with equally many draws for each method.
    """
    models: dict[tuple[int, frozenset[int]], StageResults] = {}
    tables: dict[tuple[str, str], list[dict[Key, Metric]]] = {}
    for line in sorted(lines, key=lambda line: line["seed"]):
        choice = line["seed"], frozenset(line["blocks"])
        if choice not in models:
            models[choice] = with_documents({**recipe, "seed": line["seed"]}, line["blocks"])
        for model in models[choice].models.values():
            tables.setdefault((line["method"], STATES[model.contender.healer]), []).append(by_key(model.metrics))
    intact = counting(next(iter(models.values())).metrics)
    retained = {which: summed_up(intact, metrics).worst for which, metrics in tables.items()}
    for (method, state), one in retained.items():
        for (rival, other_state), other in retained.items():
            if method in COMPARED and rival != method and state == other_state and one and other:
                more = difference(one, other, paired=True).model_dump(mode="json")
                yield {"method": method, "rival": rival, "state": state, **more}


def healing(minutes: float | None, heal_text: str | None) -> dict[str, Any]:
    """Return the parts of a recipe that heal: in closed form, and with minutes by training as well.

    Raises:
        typer.BadParameter: there is a text to train on, and no training.
    """
    if minutes is None:
        if heal_text is not None:
            raise typer.BadParameter("needs --minutes: nothing else reads this text", param_hint="--heal-text")
        return {"healers": {"linear": {}}}
    return {"healers": {"linear": {}, "distill": {"options": {"minutes": minutes}}}, "heal_text": heal_text}


def main(
    model: o.Model,
    count: Annotated[list[int], typer.Option(help="How many blocks to remove; repeatable.")],
    calibration: Annotated[str | None, typer.Option(help="Calibration text.")] = None,
    text: Annotated[
        str | None, typer.Option(help="The text to compare on; by default kept apart from the other.")
    ] = None,
    tasks: Annotated[str, typer.Option(help="Tasks to measure on as well, with commas between.")] = "",
    limit: o.Limit = None,
    data_dir: Annotated[str | None, typer.Option(help="Directory of a task's files.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only this method; repeatable.")] = None,
    draws: Annotated[int, typer.Option(help="How often each method chooses.")] = 5,
    samples: o.Samples = 64,
    max_length: o.MaxLength = 256,
    packing: Annotated[str | None, typer.Option(help="How documents become rows of calibration text.")] = None,
    rows: Annotated[int, typer.Option(help="Rows to compare on.")] = 32,
    dtype: o.Dtype = "float32",
    minutes: Annotated[float | None, typer.Option(help="How long `distill` trains; by default nothing is.")] = None,
    heal_text: Annotated[str | None, typer.Option(help="More text to train on.")] = None,
    results: o.Results = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Compare what is in --results by documents, and keep that here.")
    ] = None,
) -> None:
    """Measure and print."""
    compared = {"rows": rows, "prompts": 0} | ({"text": text} if text else {})
    recipe: dict[str, Any] = {
        "model": model,
        "dtype": dtype,
        "tasks": tasks.split(",") if tasks else [],
        **o.limits(limit),
        "data_dir": data_dir,
        "evaluators": {"harness": {"name": "harness"}, "fidelity": {"name": "fidelity", "options": compared}},
        "calibration": {"source": calibration, "samples": samples, "max_length": max_length, "packing": packing},
    }
    text_read = [Path(model).name, dtype, samples, max_length, Path(calibration or "").name, packing]
    compared_on = [rows, bool(text), tasks, limit]
    healed_by = healing(minutes, heal_text)
    trained = [] if minutes is None else [minutes, Path(heal_text or "").name]
    done = Finished(results, [*text_read, *compared_on, *trained])
    choices = Choices(results, text_read)
    for seed in range(draws):
        for name in method or METHODS:
            longest: list[int] = []
            for number in sorted(count, reverse=True):
                parts = parts_of(name, seed, number)
                choice = {"model": Path(model).name, "count": number, "method": name, "seed": seed, "recipe": parts}
                line = next((line for line in done.lines if choice.items() <= line.items()), None)
                if line is None:
                    drawn = recipe | {"seed": seed}
                    blocks = longest[:number] or choices.known(choice) or chosen(drawn | {"count": number}, parts)
                    whole = choice | {"text": choices.text, "blocks": blocks}
                    line = whole | (alike(done.lines, whole) or measured(drawn | healed_by, blocks))
                    done.add(line)
                longest = [] if "window" in name else line["blocks"]
    if pairs is not None:
        known = Finished(pairs, [done.setting, draws])
        for number in count:
            about = {"model": Path(model).name, "count": number}
            if not any(about.items() <= line.items() for line in known.lines):
                stored = [line for line in done.lines if about.items() <= line.items()]
                for pair in list(by_documents(recipe | healed_by, stored)):
                    known.add(about | pair)
        return
    for number in count:
        for name in METHODS:
            wanted = {"count": number, "method": name}
            lines = [
                line
                for line in done.lines
                if (wanted | {"recipe": parts_of(name, line["seed"], number)}).items() <= line.items()
            ]
            if lines:
                print(f"{number}, {name}: {shown(lines)}")


class Choices:
    """What methods chose on the same text, whatever the models were then compared on.

    Args:
        path: The file with finished runs.
        text_read: Everything that determines a choice and is not in a line itself.

    Attributes:
        text: A hash of it, which stands in each line.
    """

    def __init__(self, path: Path | None, text_read: list[Any]) -> None:
        self.text = Finished(None, text_read).setting
        self._lines = [line for line in lines_in(path) if line.get("text") == self.text]

    def known(self, choice: Line) -> list[int] | None:
        """Return the blocks that a method chose of so many on a draw of the text; None if that is not known."""
        return next((line["blocks"] for line in self._lines if choice.items() <= line.items()), None)


def alike(lines: list[Line], wanted: Line) -> Line | None:
    """Return what was measured of the same blocks and the same draw of text for another method; None if nothing was."""
    for line in lines:
        if (line["seed"], sorted(line["blocks"])) == (wanted["seed"], sorted(wanted["blocks"])):
            return {state: line[state] for state in STATES.values() if state in line}
    return None


def shown(lines: list[Line]) -> str:
    """Return the means over draws in a line, and how often each choice was made."""
    figures = []
    for state in STATES.values():
        measured = [line[state] for line in lines if state in line]
        if not measured:
            continue
        parts = [f"divergence {statistics.mean(fidelity['divergence']['mean'] for fidelity in measured):.3f}"]
        parts.append(f"agreement {statistics.mean(fidelity['agreement'] for fidelity in measured):.1%}")
        if copying := [fidelity["copying"] for fidelity in measured if fidelity["copying"]]:
            accuracy, intact = (statistics.mean(each[part] for each in copying) for part in ("accuracy", "intact"))
            parts.append(f"copying {accuracy:.1%} of {intact:.1%}")
        if retained := [fidelity["retained"]["worst"]["mean"] for fidelity in measured if fidelity["retained"]]:
            parts.append(f"retains {statistics.mean(retained):.1%} of the tasks")
        figures.append(f"{state} {', '.join(parts)}")
    chosen = Counter(", ".join(map(str, sorted(line["blocks"], key=str))) for line in lines)
    return f"{'; '.join(figures)}; {'; '.join(f'{times} x {blocks}' for blocks, times in chosen.most_common())}"


if __name__ == "__main__":
    typer.run(main)
