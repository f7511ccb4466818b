"""The model card of a pruned checkpoint: source, method, what was removed, what is left, how to make it again."""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import TYPE_CHECKING, Any

from layerimp._paths import last_part, tree_without_folders, without_folders
from layerimp._version import __version__
from layerimp.models.origin import Origin
from layerimp.pruner import counted
from layerimp.report import cuts
from layerimp.report.card_metadata import front_matter, metadata, results
from layerimp.report.healing import recovery
from layerimp.report.results.data import by_folder, documents_asked
from layerimp.report.statistics import measures
from layerimp.report.statistics.comparison import Kept, kept
from layerimp.report.tables.numbers import measured, percentage
from layerimp.report.targets import beside, reached, target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from layerimp.metric import Metric
    from layerimp.pruner import PrunePlan
    from layerimp.recipe import Recipe
    from layerimp.report.checkpoint import Checkpoint
    from layerimp.report.statistics.paired_bootstrap import Estimate
    from layerimp.steps import Step


RESULTS = "## Results"
"""The heading of what the evaluators measured."""


def escaped(text: str) -> str:
    """`text` as plain Markdown: one line, and nothing in it that Markdown or HTML would act on."""
    plain = re.sub(r"([\\`*_{}\[\]()#+!|<>&~$])", r"\\\1", " ".join(text.split()))
    return re.sub(r":(?=//)|(?<=www)\.|@", r"\\\g<0>", plain)  # bare addresses become links by themselves


def model_card(checkpoint: Checkpoint, origin: Origin | None = None, *, command: str = "run") -> str:
    """Return the card of a checkpoint: metadata for the Hub, and Markdown. No local folder is named.

    Args:
        checkpoint: The checkpoint.
        origin: The source of the checkpoint; by default only its name is known.
        command: The command that made the checkpoint: `run` or `prune`.
    """
    recipe, contender = checkpoint.recipe, checkpoint.contender
    origin = origin or Origin(name=last_part(recipe.model))
    healers = ["healed", recipe.healers[contender.healer].name] if contender.healer else []
    comparison = None
    if checkpoint.before and checkpoint.after:
        comparison = kept(contender.label, checkpoint.before, checkpoint.after)
    name = f"{origin.name.rpartition('/')[2]}-{contender.label}"
    tags = (checkpoint.plan.scorer, *healers)
    data = metadata(origin, checkpoint.loader, tags, results(checkpoint, comparison), name)
    lines = [
        *_summary(checkpoint, origin),
        *_measured(checkpoint, comparison),
        *_sources(checkpoint.plan),
        *use(checkpoint.loader),
        *_made_again(checkpoint, origin, command),
    ]
    return front_matter(data) + "\n".join(["", *lines, ""])


def _summary(checkpoint: Checkpoint, origin: Origin) -> Iterator[str]:
    """Yield the heading, and a list of what the checkpoint is."""
    plan, intact, name = checkpoint.plan, checkpoint.intact, escaped(origin.name)
    removed = intact - checkpoint.size
    share = removed.share_of(intact)
    blocks = f"{removed.blocks} of {intact.blocks} blocks removed"
    if not cuts.whole(plan.blocks):
        blocks = f"{checkpoint.size.blocks} of {intact.blocks} blocks left"
    yield from (f"# {name}, {blocks}", "", f"- **Source:** {name}")
    yield (
        f"- **Method:** scorer {escaped(plan.scorer or 'none')} (label {escaped(checkpoint.contender.label)}), pruner "
        f"{escaped(plan.pruner or 'none')}, layerimp {__version__}"
    )
    yield from _removed(plan.blocks)
    yield (
        f"- **Smaller by:** {counted(removed.blocks)} ({share['blocks']:.2%}), {removed.parameters:,} parameters "
        f"({share['parameters']:.2%}), {removed.bytes:,} bytes ({share['bytes']:.2%})"
    )
    for value in checkpoint.standing:
        yield f"- **Target:** {escaped(beside(value.target.quantity, target(value), reached(value)))}"
    if (healing := checkpoint.healing) is not None:
        done = "; ".join(f"{gap.gap}: {gap.done}" for gap in healing.gaps)
        back = recovery(healing.loss, healing.accuracy, healing.recovered)
        yield f"- **Healed:** by {escaped(checkpoint.contender.healer)} ({escaped(done)}); {escaped(back)}"
    if text := checkpoint.calibration:
        yield (
            f"- **Calibration:** {text.rows} rows, {text.tokens:,} tokens of "
            f"{escaped(last_part(text.source))} (fingerprint {text.fingerprint})"
        )


def _removed(steps: Sequence[Step]) -> Iterator[str]:
    """What was removed: a list of blocks, and a sentence for each place where two halves were joined."""
    what = "Blocks removed" if cuts.whole(steps) else "Removed"
    yield f"- **{what}:** {cuts.ranges(steps)} (0-based indices in the source)"
    yield from (f"- {sentence[0].upper()}{sentence[1:]}" for sentence in cuts.seams(steps))


def _sources(plan: PrunePlan) -> Iterator[str]:
    """Where the blocks of the result come from, where one is of two."""
    if not cuts.whole(plan.blocks):
        yield from ("", "## Where the blocks come from", "", "| block | attention of | MLP of |", "|---|---|---|")
        yield from (f"| {' | '.join(line)} |" for line in cuts.sources(plan.blocks, plan.num_blocks))


def _measured(checkpoint: Checkpoint, comparison: Kept | None) -> list[str]:
    """What the evaluators measured, beside the source; empty if nothing was measured."""
    before = {(metric.task, metric.name): metric for metric in checkpoint.before}
    after = [metric for metric in checkpoint.after if (metric.task, metric.name) in before]
    if comparison is None or not after:
        return []
    which = "pruned" if checkpoint.healing is None else "healed"
    lines = [
        "",
        RESULTS,
        "",
        f"| task | metric | documents | source | {which} | retained |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {escaped(metric.task)} | {escaped(metric.name)} | {metric.count or ''} | "
        f"{_shown(before[metric.task, metric.name])} | {_shown(metric)} | {_kept(comparison.of(metric))} |"
        for metric in after
    ]
    lines += ["", "Retained: 100 % is the source, 0 % a model that knows nothing. Errors (±) are standard errors."]
    lines += ["", *(f"- {escaped(without_folders(note))}" for note in comparison.notes)] if comparison.notes else []
    if checkpoint.recipe.keep is not None and checkpoint.recipe.keep_of == "quality":
        lines += [
            "",
            f"The search for {checkpoint.recipe.keep:.4g} of what the source knows did not use these documents.",
        ]
    if asked := documents_asked(checkpoint.recipe.limit, checkpoint.recipe.limits):
        lines += ["", f"Measured on {escaped(asked)}."]
    return [*lines, *_rows_read(checkpoint)]


def _rows_read(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what was read in place of data sets on the Hub."""
    if checkpoint.data_files:
        yield from (
            "",
            "Rows were read from local files:",
            "",
            "| file | rows | SHA-256 | licence |",
            "|---|---|---|---|",
        )
    for read in by_folder(checkpoint.data_files):
        yield f"| {escaped(read.where)} | {read.rows:,} | `{read.sha256}` | {escaped(read.licence) or 'not stated'} |"


def _shown(metric: Metric) -> str:
    return measured(measures.measured(metric))


def _kept(kept: Estimate | None) -> str:
    """Return what is retained of a task, with the standard error if it is known."""
    if kept is None:
        return ""
    known = kept.error is not None and math.isfinite(kept.error) and math.isfinite(kept.mean)
    return f"{percentage(kept.mean)} ± {kept.error:.1%}" if known else percentage(kept.mean)


def use(loader: str) -> Iterator[str]:
    """Yield the section that says how to load the checkpoint."""
    names = ", ".join(sorted((loader, "AutoTokenizer")))
    yield from ("", "## Use", "", "```python", f"from transformers import {names}", "")
    yield 'path = "."  # this directory, or the name of the repository on the Hub'
    yield from (f"model = {loader}.from_pretrained(path)", "tokenizer = AutoTokenizer.from_pretrained(path)", "```")


def _made_again(checkpoint: Checkpoint, origin: Origin, command: str) -> Iterator[str]:
    """Yield the section with the plan, the recipe if the plan came from scores, and the commands that use them."""
    document = tree_without_folders(checkpoint.plan.model_dump(mode="json")) | {"model": origin.name}
    model = shlex.quote(" ".join(origin.name.split()))
    pruning = f"layerimp prune --model {model} --plan plan.json --output out"
    yield from ("", "## Make it again", "", "The plan, as `plan.json`:", "", *fenced("json", as_json(document)))
    yield from ("", "This removes the same from the source:", "", *fenced("bash", pruning))
    if checkpoint.plan.scorer is not None and checkpoint.scored:
        asked = _asked(checkpoint.recipe, command) | {"model": origin.name}
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
    """Yield the lines of a code block; no line of `text` may begin with a fence."""
    yield from (f"```{language}", *text.splitlines(), "```")
