"""The model card of a pruned checkpoint: source, method, blocks removed, what is left."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from layerimp._version import __version__
from layerimp.defaults import ORIGINAL
from layerimp.report.comparison import Comparison
from layerimp.report.tables import around, percentage

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.report.data import Report


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
    blocks = ", ".join(map(str, sorted(plan.blocks)))
    lines = [
        "---",
        "library_name: transformers",
        "tags: [layerimp, pruned]",
        "---",
        "",
        f"# {escaped(report.recipe.model)}, {removed.blocks} of {report.num_blocks} blocks removed",
        "",
        f"- **Source:** {escaped(report.recipe.model)}",
        f"- **Method:** scorer {escaped(plan.scorer or 'none')} (label {escaped(label)}), pruner "
        f"{escaped(plan.pruner or 'none')}, layerimp {__version__}",
        f"- **Blocks removed:** {blocks} (0-based indices in the source)",
        f"- **Removed:** {removed.blocks} blocks ({share['blocks']:.2%}), {removed.parameters:,} parameters "
        f"({share['parameters']:.2%}), {removed.bytes:,} bytes ({share['bytes']:.2%})",
    ]
    if label in report.healed:
        done = "; ".join(f"{one.gap}: {one.done}" for one in report.healed[label].repairs)
        lines.append(f"- **Healed:** by {escaped(report.healed[label].healer)} ({escaped(done)})")
    if report.calibration:
        lines.append(
            f"- **Calibration:** {report.calibration['rows']} rows, {report.calibration['tokens']:,} tokens of "
            f"{escaped(report.calibration['source'])} (fingerprint {report.calibration['fingerprint']})"
        )
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
        if report.recipe.limit:
            lines += ["", f"Measured on the first {report.recipe.limit} documents of each task."]
    return "\n".join([*lines, ""])
