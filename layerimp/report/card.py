"""The model card of a pruned checkpoint, from the results: source, method, what was removed, how to make it again."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerimp._paths import last_part, tree_without_folders, without_folders
from layerimp._version import __version__
from layerimp.models.origin import PIPELINES, Origin, front_matter, metadata
from layerimp.pruner import counted
from layerimp.recipe import Recipe
from layerimp.report import words
from layerimp.report.results.data import by_folder, documents_asked
from layerimp.report.results.measures import Measured, Share
from layerimp.report.tables.distances import FIGURES, SHARES
from layerimp.report.tables.models import AT_FLOOR, MARK
from layerimp.report.tables.numbers import measured, number, percentage, share_cell
from layerimp.report.words import beside, recovery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from huggingface_hub import EvalResult

    from layerimp.evaluator import DataFile
    from layerimp.fidelity.record import Fidelity
    from layerimp.pruner import PrunePlan
    from layerimp.report.document import Results
    from layerimp.report.results.comparison import ModelResults
    from layerimp.report.results.models import PrunedModel, Removal
    from layerimp.steps import Step

RESULTS = "## Results"
"""The heading of what the evaluators measured."""
DISTANCE = "## How far from the source"
"""The heading of the fidelity."""

_METRICS = {"acc": "accuracy", "word_perplexity": "perplexity", "byte_perplexity": "perplexity"}
"""The Hub's names of metrics, where lm-evaluation-harness has other names."""


def escaped(text: str) -> str:
    """`text` as plain Markdown: one line, and nothing in it that Markdown or HTML would act on."""
    plain = re.sub(r"([\\`*_{}\[\]()#+!|<>&~$])", r"\\\1", " ".join(text.split()))
    return re.sub(r":(?=//)|(?<=www)\.|@", r"\\\g<0>", plain)  # bare addresses become links by themselves


@dataclass(frozen=True)
class _Checkpoint:
    """A checkpoint of a run.

    Attributes:
        results: The results of the run.
        label: The label of its pruned model.
    """

    results: Results
    label: str

    @property
    def model(self) -> ModelResults:
        """The results for the model of the run."""
        return self.results.model

    @cached_property
    def removal(self) -> Removal:
        """What was removed, and how."""
        return next(removal for removal in self.model.removals if removal.label == self.label)

    @property
    def pruned(self) -> PrunedModel:
        """The pruned model."""
        return self.removal.models[0]

    @property
    def measured(self) -> Iterator[tuple[str, str, Measured, Measured | None]]:
        """The metrics: task, name, and the values of the pruned and of the intact model."""
        for task, metrics in self.pruned.metrics.items():
            for name, metric in metrics.items():
                yield task, name, metric, self.model.metrics.get(task, {}).get(name)

    def retained(self, task: str, name: str) -> Share | None:
        """What is retained of a task, if the task counts by this metric."""
        entries = (row.entries.get(self.label) for row in self.model.rows if (row.task, row.metric) == (task, name))
        counts = any(entry is not None and entry.retained is not None for entry in entries)
        return self.removal.retained.tasks.get(task) if counts and self.removal.retained else None


def model_card(results: Results, label: str, origin: Origin | None = None, *, command: str = "run") -> str:
    """Return the card of a checkpoint: metadata for the Hub, and Markdown. No local folder is named.

    Args:
        results: The results of the run.
        label: The label of the pruned model.
        origin: The source of the checkpoint; by default only its name is known.
        command: The command that made the checkpoint: `run` or `prune`.
    """
    checkpoint, healers = _Checkpoint(results, label), results.design.healers
    origin = origin or Origin(name=last_part(results.request["model"]))
    loader, plan, healer = str(checkpoint.model.loader), checkpoint.pruned.plan, checkpoint.removal.healer
    name = f"{origin.name.rpartition('/')[2]}-{label}"
    tags = (plan.scorer, *(("healed", healers[healer].name) if healer else ()))
    lines = [
        *_summary(checkpoint, origin),
        *_measured(checkpoint),
        *distance(checkpoint.pruned.fidelity),
        *_sources(plan),
        *use(loader),
        *_made_again(checkpoint, origin, command),
    ]
    return front_matter(metadata(origin, loader, tags, _for_the_hub(checkpoint), name)) + "\n".join(["", *lines, ""])


def _for_the_hub(checkpoint: _Checkpoint) -> list[EvalResult]:
    """Return the metrics of a checkpoint as the Hub reads them, without those whose value is not finite.

    The Hub attributes all results of a card to its model. So the value of the intact model, the number of documents and
    the standard errors are given as arguments of the metric.
    """
    from huggingface_hub import EvalResult

    design, metrics = checkpoint.results.design, []
    for task, name, metric, intact in checkpoint.measured:
        kept = checkpoint.retained(task, name)
        arguments = {
            "documents": metric.documents,
            "stderr": metric.stderr,
            "higher_is_better": metric.higher_is_better,
            "intact": None if intact is None else intact.value,
            "intact_stderr": None if intact is None else intact.stderr,
            "retained": None if kept is None else kept.mean,
            "retained_stderr": None if kept is None else kept.stderr,
            "num_fewshot": design.num_fewshot,
            "limit": None if design.limits else design.limit,
        }
        if math.isfinite(metric.value):
            metrics.append(
                EvalResult(
                    task_type=PIPELINES.get(str(checkpoint.model.loader), "other"),
                    dataset_type=task,
                    dataset_name=task,
                    metric_type=_METRICS.get(name, name),
                    metric_name=name,
                    metric_value=metric.value,
                    metric_args={key: value for key, value in arguments.items() if _says(value)},
                )
            )
    return metrics


def _summary(checkpoint: _Checkpoint, origin: Origin) -> Iterator[str]:
    """Yield the heading, and a list of what the checkpoint is."""
    model, pruned, name = checkpoint.model, checkpoint.pruned, escaped(origin.name)
    assert model.size is not None
    assert pruned.size is not None
    plan, intact, removed = pruned.plan, model.size, model.size - pruned.size
    share = removed.share_of(intact)
    blocks = f"{removed.blocks} of {intact.blocks} blocks removed"
    if not words.whole(plan.blocks):
        blocks = f"{pruned.size.blocks} of {intact.blocks} blocks left"
    yield from (f"# {name}, {blocks}", "", f"- **Source:** {name}")
    yield (
        f"- **Method:** scorer {escaped(plan.scorer or 'none')} (label {escaped(checkpoint.label)}), pruner "
        f"{escaped(plan.pruner or 'none')}, layerimp {__version__}"
    )
    yield from _removed(plan.blocks)
    yield (
        f"- **Smaller by:** {counted(removed.blocks)} ({share['blocks']:.2%}), {removed.parameters:,} parameters "
        f"({share['parameters']:.2%}), {removed.bytes:,} bytes ({share['bytes']:.2%})"
    )
    for quantity, reached in pruned.targets.items():
        yield f"- **Target:** {escaped(beside(quantity, model.targets[quantity], reached))}"
    if (healing := pruned.healing) is not None:
        done = "; ".join(f"{gap.gap}: {gap.done}" for gap in healing.gaps)
        back = recovery(healing.loss, healing.accuracy, healing.recovered)
        yield f"- **Healed:** by {escaped(checkpoint.removal.healer)} ({escaped(done)}); {escaped(back)}"
    if text := model.calibration:
        yield (
            f"- **Calibration:** {text.rows} rows, {text.tokens:,} tokens of "
            f"{escaped(last_part(text.source))} (fingerprint {text.fingerprint})"
        )


def _removed(steps: Sequence[Step]) -> Iterator[str]:
    """What was removed: a list of blocks, and a sentence for each place where two halves were joined."""
    what = "Blocks removed" if words.whole(steps) else "Removed"
    yield f"- **{what}:** {words.ranges(steps)} (0-based indices in the source)"
    yield from (f"- {sentence[0].upper()}{sentence[1:]}" for sentence in words.seams(steps))


def _sources(plan: PrunePlan) -> Iterator[str]:
    """Where the blocks of the result come from, where one is of two."""
    if not words.whole(plan.blocks):
        yield from ("", "## Where the blocks come from", "", "| block | attention of | MLP of |", "|---|---|---|")
        yield from (f"| {' | '.join(line)} |" for line in words.sources(plan.blocks, plan.num_blocks))


def _measured(checkpoint: _Checkpoint) -> Iterator[str]:
    """Yield what the evaluators measured, beside the source; nothing if nothing was measured."""
    design, removal, search = checkpoint.results.design, checkpoint.removal, checkpoint.model.search
    within = checkpoint.model.inner
    both = [
        (task, name, metric, intact)
        for task, name, metric, intact in checkpoint.measured
        if intact is not None and task not in within
    ]
    if not both:
        return
    yield from ("", RESULTS, "")
    yield f"| task | metric | documents | source | {'healed' if removal.healer else 'pruned'} | retained |"
    yield "|---|---|---|---|---|---|"
    for task, name, metric, intact in both:
        kept = checkpoint.retained(task, name)
        shown = measured(intact), measured(metric), "" if kept is None else str(share_cell(kept))
        mark = f" {MARK}" if intact.at_floor else ""
        yield f"| {escaped(task)}{mark} | {escaped(name)} | {metric.documents or ''} | {' | '.join(shown)} |"
    yield from ("", "Retained: 100 % is the source, 0 % a model that knows nothing. Errors (±) are standard errors.")
    if notes := [*checkpoint.model.notes, *removal.notes]:
        yield from ("", *(f"- {escaped(without_folders(note))}" for note in notes))
    if any(intact.at_floor for _, _, _, intact in both):
        yield from ("", AT_FLOOR)
    if search is not None and search.keep_of == "quality":
        yield from ("", f"The search for {search.keep:.4g} of what the source knows did not use these documents.")
    if asked := documents_asked(design.limit, design.limits):
        yield from ("", f"Measured of each task: {escaped(asked)}.")
    yield from _rows_read(checkpoint.results.data_files)


def distance(fidelity: Fidelity | None) -> Iterator[str]:
    """Yield how far a checkpoint is from its source, with continuations of both; nothing if that was not measured."""
    if fidelity is None:
        return
    yield from ("", DISTANCE, "", "| | source | this model |", "|---|---:|---:|")
    for name, figure in FIGURES.items():
        shown = percentage if name in SHARES else number
        value, intact = figure.of(fidelity), figure.intact(fidelity)
        if value is not None:
            yield f"| {name} | {'' if intact is None else shown(intact)} | {shown(value)} |"
    if fidelity.generation is None:
        return
    if fidelity.generation.collapse:
        yield from ("", f"**Warning:** {fidelity.generation.collapse}.")
    for sample in fidelity.generation.samples:
        yield from (
            "",
            f"{'Message' if sample.chat else 'Prompt'}, and the continuations of the source and of this model:",
        )
        for text in (sample.prompt, sample.intact, sample.text):
            yield from ("", *fenced("text", " ".join(text.split()) or "(nothing)"))


def _rows_read(files: Sequence[DataFile]) -> Iterator[str]:
    """Yield what was read in place of data sets on the Hub."""
    if files:
        yield from ("", "Rows were read from local files:", "")
        yield from ("| file | rows | SHA-256 | licence |", "|---|---|---|---|")
    for read in by_folder(files):
        yield f"| {escaped(read.where)} | {read.rows:,} | `{read.sha256}` | {escaped(read.licence) or 'not stated'} |"


def use(loader: str) -> Iterator[str]:
    """Yield the section that says how to load the checkpoint."""
    names = ", ".join(sorted((loader, "AutoTokenizer")))
    yield from ("", "## Use", "", "```python", f"from transformers import {names}", "")
    yield 'path = "."  # this directory, or the name of the repository on the Hub'
    yield from (f"model = {loader}.from_pretrained(path)", "tokenizer = AutoTokenizer.from_pretrained(path)", "```")


def _made_again(checkpoint: _Checkpoint, origin: Origin, command: str) -> Iterator[str]:
    """Yield the section with the plan, the recipe if the plan came from scores, and the commands that use them."""
    document = tree_without_folders(checkpoint.pruned.plan.model_dump(mode="json")) | {"model": origin.name}
    model = shlex.quote(" ".join(origin.name.split()))
    pruning = f"layerimp prune --model {model} --plan plan.json --output out"
    yield from ("", "## Make it again", "", "The plan, as `plan.json`:", "", *fenced("json", as_json(document)))
    yield from ("", "This removes the same from the source:", "", *fenced("bash", pruning))
    if checkpoint.pruned.plan.scorer is not None and checkpoint.model.scored:
        asked = _asked(Recipe.model_validate(checkpoint.results.request), command) | {"model": origin.name}
        yield from ("", "The recipe that led to the plan, as `recipe.json`:", "", *fenced("json", as_json(asked)), "")
        yield from fenced("bash", f"layerimp {command} --recipe recipe.json --output out")


def _asked(recipe: Recipe, command: str) -> dict[str, Any]:
    """Return the fields of the recipe that differ from their defaults, without those that depend on the machine."""
    left_out = {"output", "overwrite", "device", "device_map"} | ({"tasks"} if command == "prune" else set())
    asked = recipe.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    plain: dict[str, Any] = tree_without_folders(tree_without_folders(asked, last_part))
    return plain


def as_json(document: Mapping[str, Any]) -> str:
    """Return a document as JSON that cannot end its code block, and holds nothing that is read as HTML or a formula."""
    text = json.dumps(document, indent=2)
    return text.replace("<", "\\u003c").replace("$", "\\u0024")


def fenced(language: str, text: str) -> Iterator[str]:
    """Yield the lines of a code block, whose fence is longer than any that a line of the text begins with."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"^\s*(`{3,})", text, re.MULTILINE)), default=0))
    yield from (f"{fence}{language}", *text.splitlines(), fence)


def _says(value: Any) -> bool:
    """Return whether a value is known, and is neither NaN nor infinite, which JSON cannot express."""
    return value is not None and (not isinstance(value, float) or math.isfinite(value))
