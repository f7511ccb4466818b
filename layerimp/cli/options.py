"""The options that commands share, each under the name of its parameter."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from layerimp.cli.completion import names, values
from layerimp.defaults import ALL, DTYPE_NAMES
from layerimp.errors import OptionError

Command = Callable[..., int]

model = Annotated[
    str | None,
    typer.Option(help="Model directory, or hub id. Default: starter, which ships.", autocompletion=names("model")),
]
dtype = Annotated[
    str | None,
    typer.Option(
        help="Dtype to compute in: float32, bfloat16, float16 or float64. Default: the stored dtype; float32 for the "
        "starter, and if the CPU only emulates the stored dtype. Checkpoints are written in the stored dtype.",
        autocompletion=values(*DTYPE_NAMES),
    ),
]
device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1. Default: the first GPU, else the CPU.", autocompletion=values("cpu", "cuda")),
]
device_map = Annotated[
    str | None,
    typer.Option(help="auto: spread the model over all GPUs. Default: one device.", autocompletion=values("auto")),
]
stream = Annotated[
    bool | None,
    typer.Option(
        "--stream/--no-stream",
        help="Read the model block by block, so that it need not fit into memory. Default: if it does not fit.",
    ),
]
scratch = Annotated[
    Path | None,
    typer.Option(help="Directory for hidden states of a streamed model; implies --stream. Default: memory."),
]
trust_remote_code = Annotated[bool, typer.Option("--trust-remote-code", help="Run Python that comes with the model.")]
scorer = Annotated[
    list[str] | None,
    typer.Option(
        help="Scorer, LABEL=SCORER, or all; repeatable. Default: avss.",
        autocompletion=names("scorer", ALL, after="="),
    ),
]
no_baselines = Annotated[
    bool,
    typer.Option("--no-baselines", help="Do not evaluate the baselines random and depth beside the scorers."),
]
set_ = Annotated[
    list[str] | None,
    typer.Option("--set", help="LABEL.OPTION=VALUE, for a scorer, pruner, healer or evaluator; repeatable."),
]
calibration = Annotated[
    str | None,
    typer.Option(
        help="JSONL or text file, or hub data set NAME[:CONFIG[:SPLIT]], or task:NAME. Default: text that ships.",
        autocompletion=names("text"),
    ),
]
field = Annotated[str | None, typer.Option(help="JSON field that holds the text. Default: text.")]
packing = Annotated[
    str | None,
    typer.Option(
        help="windows (documents joined, full rows) or rows. Default: windows; for a classifier on a task, rows.",
        autocompletion=values("windows", "rows"),
    ),
]
label_field = Annotated[
    str | None,
    typer.Option(help="JSON field that holds a classifier's label; needs --packing rows."),
]
samples = Annotated[int | None, typer.Option(help="Calibration rows. Default: 64.")]
max_length = Annotated[int | None, typer.Option(help="Tokens per row. Default: 256, or the model's limit.")]
batch_size = Annotated[int | None, typer.Option(help="Rows per batch. Default: 8.")]
seed = Annotated[int | None, typer.Option(help="Seed of every draw. Default: 0.")]
cuts = Annotated[
    str | None,
    typer.Option(
        help="What may be removed: blocks, or all (blocks and the seams between them). Default: blocks.",
        autocompletion=values("blocks", "all"),
    ),
]
by = Annotated[
    str | None,
    typer.Option(
        help="What to score: block, or sublayer (attention and MLP separately). Default: block.",
        autocompletion=values("block", "sublayer"),
    ),
]
pruner = Annotated[str | None, typer.Option(help="Pruner. Default: lowest.", autocompletion=names("pruner"))]
ratio = Annotated[
    float | None,
    typer.Option(
        help="Share of the blocks to remove; it is less of the parameters, since embeddings stay. "
        "Default: 0.25, or what --count, --target or --blocks says."
    ),
]
count = Annotated[int | None, typer.Option(help="How many blocks to remove, in place of --ratio.")]
target = Annotated[
    list[str] | None,
    typer.Option(
        help="Size not to exceed, in place of --ratio: parameters=200M, bytes=6GB, kv-cache=64KiB (per token), "
        "latency=750ms, or a factor of the intact model's size, such as latency=0.7; repeatable, all must hold.",
        autocompletion=values("parameters=", "bytes=", "kv-cache=", "latency="),
    ),
]
keep = Annotated[
    float | None,
    typer.Option(help="Share of the model's quality to keep, such as 0.95; removes as many blocks as possible."),
]
plan = Annotated[Path | None, typer.Option(help="Plan file (plan.json of an earlier output) to apply.")]
label = Annotated[
    list[str] | None,
    typer.Option(help="Which plan of the file; repeatable. Default: all except those of the baselines."),
]
export = Annotated[
    str | None,
    typer.Option(
        help="mergekit: the YAML of a passthrough merge; llama.cpp: the list for --prune-layers.",
        autocompletion=values("mergekit", "llama.cpp"),
    ),
]
blocks = Annotated[
    str | None,
    typer.Option(help="What to remove regardless of scores: blocks and seams between blocks, such as 3,8-10,17/18."),
]
protect = Annotated[str | None, typer.Option(help="Blocks to keep regardless of scores, such as 0,15-17.")]
tasks = Annotated[
    list[str] | None,
    typer.Option(
        help="lm-evaluation-harness tasks, comma-separated: names or YAML paths; repeatable; or none. "
        "Default: three that ship.",
        autocompletion=names("task", "none", after=","),
    ),
]
heal = Annotated[
    list[str] | None,
    typer.Option(
        help="Healer, or LABEL=HEALER, that repairs every pruned model; repeatable. Default: none.",
        autocompletion=names("healer", after="="),
    ),
]
heal_text = Annotated[
    str | None,
    typer.Option(
        "--heal-text",
        help="Further text for healers that train, such as distill; like --calibration.",
        autocompletion=names("text"),
    ),
]
allow_overlap = Annotated[
    bool | None,
    typer.Option("--allow-overlap", help="Let models be healed on documents that a task measures them on."),
]
evaluator = Annotated[
    list[str] | None,
    typer.Option(
        help="Evaluator; repeatable. Default: harness and footprint.", autocompletion=names("evaluator", after="=")
    ),
]
task_path = Annotated[Path | None, typer.Option(help="Directory with further task YAMLs.")]
data_dir = Annotated[
    Path | None,
    typer.Option(help="Where relative data files of local tasks are looked for first."),
]
limit = Annotated[int | None, typer.Option(help="Documents per task. Default: all.")]
num_fewshot = Annotated[int | None, typer.Option(help="Examples in each prompt. Default: the task's.")]
allow_task_code = Annotated[
    bool,
    typer.Option("--allow-task-code", help="Run Python functions that local task YAMLs name."),
]
output = Annotated[Path | None, typer.Option(help="Directory for results and checkpoints; must not exist.")]
overwrite = Annotated[
    bool | None,
    typer.Option("--overwrite", help="Replace an output that layerimp made."),
]
no_verify = Annotated[bool, typer.Option("--no-verify", help="Do not load checkpoints back to compare.")]
max_shard_size = Annotated[
    str | None,
    typer.Option("--max-shard-size", help="Largest file of a checkpoint's weights, such as 5GB."),
]
recipe = Annotated[
    Path | None,
    typer.Option("--recipe", help="YAML or JSON recipe; options given here win."),
]
dry_run = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what the command would do: sizes, passes, memory, estimated time. Nothing is written."
    ),
]
json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]


MODEL = "dtype device device_map trust_remote_code"
TEXT = "field packing label_field samples max_length"
TASKS = "task_path data_dir limit num_fewshot allow_task_code"
"""Names of options that commands take together."""


def taking(names: str, *, argument: str = "", **own: Any) -> Callable[[Command], Command]:
    """Declare the options that a function takes as keywords, so that typer finds them like those of a signature.

    Args:
        names: The options, in the order of `--help`. Flags are off by default, and all others are None.
        argument: The option that may be given without its name, as the command's argument; the function gets the value
            by the option's name either way.
        own: Options that only this command has, or that have another meaning here; all others are from this module.
    """
    options: dict[str, Any] = {name: own.get(name) or globals()[name] for name in names.split()}
    if argument:
        options = {_ARGUMENT: _as_argument(argument, options[argument]), **options}
    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=option, default=False if option.__origin__ is bool else None)
        for name, option in options.items()
    ]

    def declared(function: Command) -> Command:
        @wraps(function)
        def with_argument(**given: Any) -> int:
            if argument and (value := given.pop(_ARGUMENT)) is not None:
                if given[argument] is not None:
                    twice = f"{str(value)!r} as the argument, and {str(given[argument])!r} by --{argument}"
                    raise OptionError(f"the {argument} is given twice: {twice}")
                given[argument] = value
            return function(**given)

        vars(with_argument)["__signature__"] = Signature(parameters)
        with_argument.__annotations__ = options
        return with_argument

    return declared


_ARGUMENT = "argument"
"""The parameter of a command's argument."""


def _as_argument(name: str, option: Any) -> Any:
    """Return the declaration of an argument that takes what an option takes."""
    (declared,) = option.__metadata__
    help = f"Short for --{name} {name.upper()}."
    return Annotated[
        option.__origin__, typer.Argument(metavar=name.upper(), help=help, autocompletion=declared.autocompletion)
    ]
