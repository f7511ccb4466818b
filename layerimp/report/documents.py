"""The JSON documents of a run: what `--json` prints, and the files of an output directory.

The types are used by the code that makes the documents (`report.conversion`). The JSON Schemas and the tables of the
reference are generated from them.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # before Python 3.12, typing.TypedDict lacks what pydantic needs

from layerimp.report.json_types import closed
from layerimp.steps import Step


@closed
class Plan(TypedDict):
    """A plan: the steps to remove. It is a part of `plan.json`; `layerimp prune --plan` also takes a plan alone."""

    schema_version: Annotated[Literal["layerimp.plan/2"], Field(description="The version of this format.")]
    num_blocks: Annotated[int, Field(description="The number of blocks of the model that the plan is for.")]
    blocks: Annotated[
        list[Step],
        Field(description="The steps to remove, in order: blocks as numbers, other steps as text, such as `17/18`."),
    ]
    reason: Annotated[str, Field(description="Why these steps were chosen, in words.")]
    scorer: Annotated[str | None, Field(description="The scorer whose scores the plan follows, if any.")]
    pruner: Annotated[str | None, Field(description="The pruner that made the plan, if any.")]
    model: Annotated[
        str | None, Field(description="The model that the plan was made for: an absolute path, or a name.")
    ]
    nested: Annotated[
        bool | None,
        Field(description="Whether the first steps are also the plan for fewer blocks; null if not known."),
    ]


@closed
class PlanFile(TypedDict):
    """The content of `plan.json`. `layerimp prune --plan` applies `plans`, but not the plans of baselines."""

    schema_version: Annotated[Literal["layerimp.plans/2"], Field(description="The version of this format.")]
    plans: Annotated[dict[str, Plan], Field(description="The plans, by label.")]
    baselines: NotRequired[Annotated[dict[str, Plan], Field(description="The plans of the baselines, by label.")]]


@closed
class Error(TypedDict):
    """An error."""

    kind: Annotated[
        str, Field(description="The name of the error, such as `OptionError`, `UsageError`, `Interrupted`.")
    ]
    message: Annotated[str, Field(description="What is wrong, where, and what would be right, in one line.")]
    exit_code: Annotated[int, Field(description="The exit code of the command.")]


@closed
class ErrorReport(TypedDict):
    """The document that a command prints with `--json` if it fails as a whole."""

    schema_version: Annotated[Literal["layerimp.error/1"], Field(description="The version of this format.")]
    error: Annotated[Error, Field(description="The error.")]
