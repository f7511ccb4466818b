"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str | None, typer.Option(help="Model directory, or hub id. Default: starter, which ships.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="What to compute in: float32, bfloat16, float16 or float64. Default: as stored, but float32 where the CPU "
        "only emulates that, and for the starter. Checkpoints are written as stored."
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: the first GPU, else the CPU.")]
DeviceMap = Annotated[
    str | None,
    typer.Option(help="auto: spread the model over all GPUs. Default: one device."),
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python that comes with the model.")]
Scorer = Annotated[
    list[str] | None,
    typer.Option(help="Scorer, LABEL=SCORER, or all; repeatable. Default: avss."),
]
NoBaselines = Annotated[
    bool,
    typer.Option("--no-baselines", help="Do not evaluate the baselines random and depth beside the scorers."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="LABEL.OPTION=VALUE, for a scorer, the pruner or an evaluator; repeatable."),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        help="JSONL or text file, or hub data set NAME[:CONFIG[:SPLIT]], or task:NAME. Default: text that ships."
    ),
]
Field = Annotated[str | None, typer.Option(help="JSON field that holds the text. Default: text.")]
Packing = Annotated[
    str | None,
    typer.Option(
        help="windows (documents joined, full rows) or rows. Default: windows; for a classifier on a task, rows."
    ),
]
LabelField = Annotated[
    str | None,
    typer.Option(help="JSON field that holds a classifier's label; needs --packing rows."),
]
Samples = Annotated[int | None, typer.Option(help="Calibration rows. Default: 64.")]
MaxLength = Annotated[int | None, typer.Option(help="Tokens per row. Default: 256, or what the model takes.")]
BatchSize = Annotated[int | None, typer.Option(help="Rows per batch. Default: 8.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every draw. Default: 0.")]
Pruner = Annotated[str | None, typer.Option(help="Pruner. Default: lowest.")]
Ratio = Annotated[
    float | None,
    typer.Option(help="Share of the blocks to remove. Default: 0.25, or what --count or --blocks says."),
]
Count = Annotated[int | None, typer.Option(help="How many blocks to remove, in place of --ratio.")]
Blocks = Annotated[str | None, typer.Option(help="Blocks that go whatever their score, such as 3,5.")]
Protect = Annotated[str | None, typer.Option(help="Blocks that stay whatever their score, such as 0,17.")]
Tasks = Annotated[
    str | None,
    typer.Option(
        help="lm-evaluation-harness tasks, comma-separated: names or YAML paths; none. Default: three that ship."
    ),
]
Evaluator = Annotated[
    list[str] | None,
    typer.Option(help="Evaluator; repeatable. Default: harness and footprint."),
]
TaskPath = Annotated[Path | None, typer.Option(help="Directory with further task YAMLs.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where relative data files of local tasks are looked for first."),
]
Limit = Annotated[int | None, typer.Option(help="Documents per task. Default: all.")]
NumFewshot = Annotated[int | None, typer.Option(help="Examples in each prompt. Default: the task's.")]
AllowTaskCode = Annotated[
    bool,
    typer.Option("--allow-task-code", help="Run Python that local task YAMLs name."),
]
Output = Annotated[Path | None, typer.Option(help="Directory for results and checkpoints; must not exist.")]
Overwrite = Annotated[
    bool | None,
    typer.Option("--overwrite", help="Replace an output that layerimp made."),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not load checkpoints back to compare.")]
MaxShardSize = Annotated[
    str | None,
    typer.Option("--max-shard-size", help="Largest file of a checkpoint's weights, such as 5GB."),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", help="YAML or JSON recipe; options given here win."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
