"""The model card of a pruned checkpoint: source, method, blocks removed, what is left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from layerimp._version import __version__
from layerimp.defaults import ORIGINAL

if TYPE_CHECKING:
    from layerimp.evaluator import Metric
    from layerimp.report.data import Report


def escaped(text: str) -> str:
    """`text` as plain Markdown: one line, and nothing in it that Markdown or HTML would act on."""
    plain = re.sub(r"([\\`*_{}\[\]()#+!|<>&~$])", r"\\\1", " ".join(text.split()))
    return re.sub(r":(?=//)|(?<=www)\.|@", r"\\\g<0>", plain)  # bare addresses become links by themselves


def measured(metric: Metric) -> str:
    """A value with its standard error, where it has one."""
    return f"{metric.value:.4g}" + ("" if metric.stderr is None else f" ± {metric.stderr:.2g}")


def model_card(report: Report, label: str) -> str:
    """The card of the checkpoint under `label`, in Markdown."""
    plan, removed = report.plans[label], report.removed(label)
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
    if report.calibration:
        lines.append(
            f"- **Calibration:** {report.calibration['rows']} rows, {report.calibration['tokens']:,} tokens of "
            f"{escaped(report.calibration['source'])} (fingerprint {report.calibration['fingerprint']})"
        )
    before = {(metric.task, metric.name): metric for metric in report.metrics.get(ORIGINAL, [])}
    kept = report.retention(label)
    after = [metric for metric in report.metrics.get(label, []) if (metric.task, metric.name) in before]
    if after:
        lines += ["", "| task | metric | source | pruned | retention |", "|---|---|---|---|---|"]
        for metric in after:
            key = metric.task, metric.name
            share_left = "" if kept[key] is None else f"{kept[key]:.1%}"
            lines.append(
                f"| {escaped(metric.task)} | {escaped(metric.name)} | {measured(before[key])} | {measured(metric)} | "
                f"{share_left} |"
            )
        if report.recipe.limit:
            lines += ["", f"Measured on the first {report.recipe.limit} documents of each task."]
    return "\n".join([*lines, ""])
