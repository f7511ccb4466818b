"""The model card of a pruned checkpoint: source, method, what was removed, what is left, how to make it again."""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import TYPE_CHECKING, Any

from layerimp._version import __version__
from layerimp.defaults import ORIGINAL
from layerimp.models.origin import Origin
from layerimp.pruner import counted
from layerimp.report import cuts
from layerimp.report.card_metadata import front_matter, metadata, results
from layerimp.report.comparison import Comparison
from layerimp.report.folders import last_part, tree_without_folders, without_folders
from layerimp.report.healing import recovery
from layerimp.report.tables import around, percentage
from layerimp.report.targets import stood

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from layerimp.evaluator import Metric
    from layerimp.pruner import PrunePlan
    from layerimp.report.data import Report
    from layerimp.report.paired_bootstrap import Estimate
    from layerimp.steps import Step


RESULTS = "## Results"
"""The heading of what the evaluators measured."""


def escaped(text: str) -> str:
    """`text` as plain Markdown: one line, and nothing in it that Markdown or HTML would act on."""
    plain = re.sub(r"([\\`*_{}\[\]()#+!|<>&~$])", r"\\\1", " ".join(text.split()))
    return re.sub(r":(?=//)|(?<=www)\.|@", r"\\\g<0>", plain)  # bare addresses become links by themselves


def measured(metric: Metric) -> str:
    """A value with its standard error, where it has one; that of a perplexity has two sides."""
    ends = metric.ends(1.0)
    if ends is None or not math.isfinite(metric.value):
        return f"{metric.value:.4g}"
    return f"{metric.value:.4g} {around(metric.value, *ends, '{:.2g}'.format)}".rstrip()


def model_card(report: Report, label: str, origin: Origin | None = None, *, command: str = "run") -> str:
    """Return the card of the checkpoint under `label`: metadata for the Hub, and Markdown. No local folder is named.

    Args:
        report: The results of the run.
        label: The label of the checkpoint.
        origin: The source of the checkpoint; by default only its name is known.
        command: The command that made the checkpoint: `run` or `prune`.
    """
    origin = origin or Origin(name=last_part(report.recipe.model))
    plan, healing = report.plan_of(label), report.healed.get(label)
    found = None
    if report.metrics.get(ORIGINAL) and report.metrics.get(label):
        found = Comparison.of({which: report.metrics[which] for which in (ORIGINAL, label)})
    tags = (plan.scorer, *(("healed", report.recipe.healers[healing.healer].name) if healing else ()))
    name = f"{origin.name.rpartition('/')[2]}-{label}"
    data = metadata(origin, report.loader, tags, results(report, label, found), name)
    lines = [
        *_summary(report, label, origin),
        *_measured(report, label, found),
        *_sources(plan),
        *use(report.loader),
        *_made_again(report, plan, origin, command),
    ]
    return front_matter(data) + "\n".join(["", *lines, ""])


def _summary(report: Report, label: str, origin: Origin) -> Iterator[str]:
    """Yield the heading, and a list of what the checkpoint is."""
    plan, removed, name = report.plan_of(label), report.removed(label), escaped(origin.name)
    share = removed.share_of(report.sizes[ORIGINAL])
    blocks = f"{removed.blocks} of {report.num_blocks} blocks removed"
    if not cuts.whole(plan.blocks):
        blocks = f"{report.num_blocks - removed.blocks} of {report.num_blocks} blocks left"
    yield from (f"# {name}, {blocks}", "", f"- **Source:** {name}")
    yield (
        f"- **Method:** scorer {escaped(plan.scorer or 'none')} (label {escaped(label)}), pruner "
        f"{escaped(plan.pruner or 'none')}, layerimp {__version__}"
    )
    yield from _removed(plan.blocks)
    yield (
        f"- **Smaller by:** {counted(removed.blocks)} ({share['blocks']:.2%}), {removed.parameters:,} parameters "
        f"({share['parameters']:.2%}), {removed.bytes:,} bytes ({share['bytes']:.2%})"
    )
    yield from (f"- **Target:** {escaped(stood(one))}" for one in report.standing(label))
    if (healing := report.healed.get(label)) is not None:
        done = "; ".join(f"{one.gap}: {one.done}" for one in healing.repairs)
        back = recovery(healing.loss, healing.accuracy, healing.recovered)
        yield f"- **Healed:** by {escaped(healing.healer)} ({escaped(done)}); {escaped(back)}"
    if report.calibration:
        yield (
            f"- **Calibration:** {report.calibration['rows']} rows, {report.calibration['tokens']:,} tokens of "
            f"{escaped(last_part(report.calibration['source']))} (fingerprint {report.calibration['fingerprint']})"
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


def _measured(report: Report, label: str, found: Comparison | None) -> list[str]:
    """What the evaluators measured, beside the source; empty if nothing was measured."""
    before = {(metric.task, metric.name): metric for metric in report.metrics.get(ORIGINAL, [])}
    after = [metric for metric in report.metrics.get(label, []) if (metric.task, metric.name) in before]
    if found is None or not after:
        return []
    which = "healed" if label in report.healed else "pruned"
    lines = [
        "",
        RESULTS,
        "",
        f"| task | metric | documents | source | {which} | retained |",
        "|---|---|---|---|---|---|",
    ]
    for metric in after:
        kept = found.retained[label].tasks.get(metric.task) if found.counts(metric) else None
        lines.append(
            f"| {escaped(metric.task)} | {escaped(metric.name)} | {metric.count or ''} | "
            f"{measured(before[metric.task, metric.name])} | {measured(metric)} | {_kept(kept)} |"
        )
    lines += ["", "Retained: 100 % is the source, 0 % a model that knows nothing. Errors (±) are standard errors."]
    lines += ["", *(f"- {escaped(without_folders(note))}" for note in found.notes)] if found.notes else []
    if report.search is not None:
        lines += ["", f"The search for {report.search.keep:.4g} of what the source knows did not use these documents."]
    if report.recipe.limit:
        lines += ["", f"Measured on the first {report.recipe.limit} documents of each task."]
    return lines


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


def _made_again(report: Report, plan: PrunePlan, origin: Origin, command: str) -> Iterator[str]:
    """Yield the section with the plan, the recipe if the plan came from scores, and the commands that use them."""
    document = tree_without_folders(plan.model_dump(mode="json")) | {"model": origin.name}
    model = shlex.quote(" ".join(origin.name.split()))
    pruning = f"layerimp prune --model {model} --plan plan.json --output out"
    yield from ("", "## Make it again", "", "The plan, as `plan.json`:", "", *fenced("json", as_json(document)))
    yield from ("", "This removes the same from the source:", "", *fenced("bash", pruning))
    if plan.scorer is not None and report.importance:
        asked = _asked(report, command) | {"model": origin.name}
        yield from ("", "The recipe that led to the plan, as `recipe.json`:", "", *fenced("json", as_json(asked)), "")
        yield from fenced("bash", f"layerimp {command} --recipe recipe.json --output out")


def _asked(report: Report, command: str) -> dict[str, Any]:
    """Return the fields of the recipe that differ from their defaults, without those that depend on the machine."""
    left_out = {"output", "overwrite", "device", "device_map"} | ({"tasks"} if command == "prune" else set())
    asked = report.recipe.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    found: dict[str, Any] = tree_without_folders(tree_without_folders(asked, last_part))
    return found


def as_json(document: Mapping[str, Any]) -> str:
    """Return a document as JSON that cannot end its code block, and holds nothing that is read as HTML or a formula."""
    text = json.dumps(document, indent=2)
    return text.replace("<", "\\u003c").replace("$", "\\u0024")


def fenced(language: str, text: str) -> Iterator[str]:
    """Yield the lines of a code block; no line of `text` may begin with a fence."""
    yield from (f"```{language}", *text.splitlines(), "```")
