"""`layerimp plan`: showing the plans of a file, and exporting a plan for another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from layerimp.cli import options as o
from layerimp.errors import OptionError, listing

file = Annotated[Path | None, typer.Option(help="Plan file, such as plan.json of an earlier output.")]
model = Annotated[str | None, typer.Option(help="The model to name to the other tool. Default: the plan's.")]

count = Annotated[
    int | None, typer.Option(help="How many steps to take of each plan, from the first on. Default: all.")
]


@o.taking("plan label count model export json", argument="plan", plan=file, model=model, count=count)
def plan(*, plan: Path | None, **given: Any) -> int:
    """Show the plans of a file, or print one for another tool.

    Example: layerimp plan OUT/plan.json --export mergekit
    """
    from layerimp.cli.display import Screen
    from layerimp.cli.listings import show_plans
    from layerimp.recipe.plans import read_plans

    if plan is None:
        raise OptionError("plan shows the plans of a file: name it, such as OUT/plan.json")
    plans = read_plans(plan, given["label"], given["count"])
    screen = Screen(json=given["json"])
    if given["export"] is None:
        show_plans(screen, plans)
        return 0
    if given["json"]:
        raise OptionError("--export prints the text that another tool reads, and contradicts --json")
    from layerimp.report.plan_exports import exported

    if len(plans) > 1:
        raise OptionError(f"{plan} holds several plans; choose one with --label: {listing(plans)}")
    (one,) = plans.values()
    screen.print_text(exported(one, given["export"], model=given["model"]))
    return 0
