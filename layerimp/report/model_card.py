"""The model card of a pruned checkpoint: source, method, what was removed, what is left."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from layerimp._version import __version__
from layerimp.defaults import ORIGINAL
from layerimp.pruner import counted
from layerimp.report import cuts
from layerimp.report.comparison import Comparison
from layerimp.report.tables import around, percentage
from layerimp.report.targets import stood

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerimp.evaluator import Metric
    from layerimp.pruner import PrunePlan
    from layerimp.report.data import Report
    from layerimp.steps import Step


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


def model_card(report: Report, label: str) -> str:
    """The card of the checkpoint under `label`, in Markdown."""
    plan, removed = report.plan_of(label), report.removed(label)
    share = removed.share_of(report.sizes[ORIGINAL])
    blocks = f"{removed.blocks} of {report.num_blocks} blocks removed"
    if not cuts.whole(plan.blocks):
        blocks = f"{report.num_blocks - removed.blocks} of {report.num_blocks} blocks left"
    lines = [
        "---",
        "library_name: transformers",
        "tags: [layerimp, pruned]",
        "---",
        "",
        f"# {escaped(report.recipe.model)}, {blocks}",
        "",
        f"- **Source:** {escaped(report.recipe.model)}",
        f"- **Method:** scorer {escaped(plan.scorer or 'none')} (label {escaped(label)}), pruner "
        f"{escaped(plan.pruner or 'none')}, layerimp {__version__}",
        *_removed(plan.blocks),
        f"- **Smaller by:** {counted(removed.blocks)} ({share['blocks']:.2%}), {removed.parameters:,} parameters "
        f"({share['parameters']:.2%}), {removed.bytes:,} bytes ({share['bytes']:.2%})",
        *(f"- **Target:** {escaped(stood(one))}" for one in report.standing(label)),
    ]
    if label in report.healed:
        done = "; ".join(f"{one.gap}: {one.done}" for one in report.healed[label].repairs)
        lines.append(f"- **Healed:** by {escaped(report.healed[label].healer)} ({escaped(done)})")
    if report.calibration:
        lines.append(
            f"- **Calibration:** {report.calibration['rows']} rows, {report.calibration['tokens']:,} tokens of "
            f"{escaped(report.calibration['source'])} (fingerprint {report.calibration['fingerprint']})"
        )
    return "\n".join([*lines, *_measured(report, label), *_sources(plan), ""])


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


def _measured(report: Report, label: str) -> list[str]:
    """What the evaluators measured, beside the source; empty if nothing was measured."""
    lines: list[str] = []
    before = {(metric.task, metric.name): metric for metric in report.metrics.get(ORIGINAL, [])}
    after = [metric for metric in report.metrics.get(label, []) if (metric.task, metric.name) in before]
    if after:
        found = Comparison.of({which: report.metrics[which] for which in (ORIGINAL, label)})
        lines += ["", "| task | metric | documents | source | pruned | retained |", "|---|---|---|---|---|---|"]
        for metric in after:
            kept = found.retained[label].tasks.get(metric.task) if found.counts(metric) else None
            lines.append(
                f"| {escaped(metric.task)} | {escaped(metric.name)} | {metric.count or ''} | "
                f"{measured(before[metric.task, metric.name])} | {measured(metric)} | "
                f"{'' if kept is None else percentage(kept.mean)} |"
            )
        lines += ["", "Retained: 100 % is the source, 0 % a model that knows nothing.", ""]
        lines += [f"- {escaped(note)}" for note in found.notes]
        if report.search is not None:
            lines += [
                "",
                f"The search for {report.search.keep:.4g} of what the source knows did not use these documents.",
            ]
        if report.recipe.limit:
            lines += ["", f"Measured on the first {report.recipe.limit} documents of each task."]
    return lines
