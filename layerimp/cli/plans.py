"""`layerimp plan`: showing the plans of a file, and exporting a plan for another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from layerimp.cli import options as o
from layerimp.errors import OptionError, listing
from layerimp.indices import kept_blocks

if TYPE_CHECKING:
    from layerimp.pruner import PrunePlan

_OWN: dict[str, Any] = {
    "plan": o.option(o.File, "Plan file, such as plan.json of an earlier output."),
    "model": o.option(o.Text, "The model to name to the other tool. Default: the plan's."),
    "count": o.option(int | None, "How many blocks to take of each plan, from the first on. Default: all."),
}


@o.taking("plan label count model export json", argument="plan", **_OWN)
def plan(*, plan: Path | None, **given: Any) -> int:
    """Show the plans of a file, or print one for another tool.

    Example: layerimp plan OUT/plan.json --export mergekit
    """
    from layerimp.cli import listings
    from layerimp.cli.display import Screen
    from layerimp.recipe.plans import PlanFile, read_plans

    if plan is None:
        raise OptionError("plan shows the plans of a file: name it, such as OUT/plan.json")
    plans = read_plans(plan, given["label"], given["count"])
    screen = Screen(json=given["json"])
    if given["export"] is None:
        file = PlanFile(plans=plans)
        screen.present(file, listings.plans(file))
        return 0
    if given["json"]:
        raise OptionError("--export prints the text that another tool reads, and contradicts --json")
    if len(plans) > 1:
        raise OptionError(f"{plan} holds several plans; choose one with --label: {listing(plans)}")
    (chosen,) = plans.values()
    screen.print_text(exported(chosen, given["export"], model=given["model"]))
    return 0


def exported(plan: PrunePlan, tool: str, *, model: str | None = None) -> str:
    """Write a plan as text that another tool reads.

    Args:
        plan: The plan.
        tool: `mergekit`, or `llama.cpp`.
        model: The name of the model; None for the model that the plan was made for.

    Raises:
        OptionError: the tool needs the name of a model and neither `model` nor the plan has one.
    """
    return _mergekit(plan, model or plan.model) if tool == "mergekit" else _llama_cpp(plan)


def _mergekit(plan: PrunePlan, model: str | None) -> str:
    """Write a passthrough merge (mergekit's `MergeConfiguration`): a slice per run of kept blocks, its end excluded."""
    if model is None:
        raise OptionError("the plan does not say which model it is for; name the model with --model")
    slices: list[list[int]] = []
    for block in kept_blocks(plan.blocks, plan.num_blocks):
        if slices and slices[-1][1] == block:
            slices[-1][1] = block + 1
        else:
            slices.append([block, block + 1])
    sources = [{"sources": [{"model": model, "layer_range": kept}]} for kept in slices]
    return yaml.safe_dump({"slices": sources, "merge_method": "passthrough"}, sort_keys=False, default_flow_style=None)


def _llama_cpp(plan: PrunePlan) -> str:
    """Write the list for `llama-quantize --prune-layers`: 0-based, as in GGUF's tensor names, in ascending order."""
    return ",".join(map(str, sorted(plan.blocks))) + "\n"
