"""The options that commands share, each under the name of its parameter.

An option that takes what a field of the recipe takes is not declared here: its type, help and default are those of
the field (`of_field`). Declared here are options that are written in another way, such as `--scorer LABEL=SCORER`, and
options that are no part of a recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from layerimp.defaults import HEALER, PRUNER, TRAINER
from layerimp.errors import OptionError
from layerimp.recipe import CalibrationSpec, ComponentSpec, Experiment, Recipe

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


Command = Callable[..., int]


def option(kind: Any, help: str, *flags: str, argument: str = "") -> Any:
    """Declare an option, or an argument.

    Args:
        kind: The type of its value.
        help: The help.
        flags: The option as it is written, if that is not `--` and the name of the parameter.
        argument: The name under which the help shows an argument; empty for an option.
    """
    if argument:
        return Annotated[kind, typer.Argument(metavar=argument, help=help)]
    return Annotated[kind, typer.Option(*flags, help=help)]


Text, Texts, File = str | None, list[str] | None, Path | None
"""The types of options: a text, several texts if the option is repeated, and a path."""

trust_remote_code = option(bool, "Run Python that comes with the model.", "--trust-remote-code")
allow_task_code = option(bool, "Run Python functions that local task YAMLs name.", "--allow-task-code")
no_baselines = option(bool | None, "Evaluate no baselines beside the scorers.", "--no-baselines")
pruner = option(
    Text,
    "Pruner; if one is named, the default scorer is fast. "
    f"Default: {PRUNER}, but that of the recommended method with it.",
)
scorer = option(
    Texts,
    "Scorer, LABEL=SCORER, or all; repeatable. best is the recommended method, which heals as well, and fast the best "
    "scorer that reads the text once.",
)
heal = option(
    Texts,
    "Healer, or LABEL=HEALER, that repairs every pruned model; repeatable; or none, with which the default scorer is "
    f"fast. Default: none, but with the recommended method {HEALER}.",
)
minutes = option(float | None, f"Minutes of training, for a healer that trains, such as {TRAINER}.")
evaluator = option(
    Texts,
    "Evaluator, or LABEL=EVALUATOR; repeatable. By default fidelity is measured briefly; named, with all figures.",
)
set_ = option(Texts, "LABEL.OPTION=VALUE, for a scorer, pruner, healer or evaluator; repeatable.", "--set")
by = option(
    Literal["block", "sublayer"] | None,
    "What to score: blocks, or sublayers (attention and MLP separately). Default: block.",
)
target = option(
    Texts,
    "Size not to exceed, in place of --ratio: parameters=200M, bytes=6GB, kv-cache=64KiB (per token), "
    "or a factor of the intact model's size, such as parameters=0.7; repeatable, all must hold.",
)
keep = option(
    Text,
    "Share of the model's quality to keep, such as 0.95, in place of --ratio; as many blocks are removed as "
    "that allows. agreement=0.9: share of the predictions with the same top token as the intact model's.",
)
blocks = option(Text, "Blocks to remove regardless of scores, such as 3,8-10.")
protect = option(Text, "Blocks to keep regardless of scores, such as 0,15-17.")
plan = option(File, "Plan file (plan.json of an earlier output) to apply.")
label = option(Texts, "Which plan of the file; repeatable. Default: all except those of the baselines.")
export = option(
    Literal["mergekit", "llama.cpp"] | None,
    "mergekit: the YAML of a passthrough merge; llama.cpp: the list for --prune-layers.",
)
tasks = option(
    Texts,
    "lm-evaluation-harness tasks, comma-separated: names or YAML paths; repeatable; or none. "
    "Default: those of the starter.",
)
limit = option(
    Texts, "Documents per task, or NAME=N for a task or group, spread over its members; repeatable. Default: all."
)
no_verify = option(bool | None, "Do not load checkpoints back to compare.", "--no-verify")
recipe = option(File, "YAML or JSON recipe; options given here win.")
dry_run = option(
    bool, "Say what the command would do: sizes, passes, memory, estimated time. Nothing is written.", "--dry-run"
)
json = option(bool, "Print one JSON document on stdout, and nothing else.", "--json")

MODEL = "dtype device device_map trust_remote_code"
TEXT = "field packing label_field samples max_length"
TASKS = "task_path data_dir limit num_fewshot allow_task_code"
"""Names of options that commands take together."""
FIELDS = {
    "scorer": "scorers",
    "no_baselines": "baselines",
    "heal": "healers",
    "evaluator": "evaluators",
    "target": "targets",
    "no_verify": "verify",
    "model": "models",
    "pruner": "pruners",
    "count": "counts",
    "ratio": "ratios",
}
"""The fields that options of other names set. The last four are of grids; a run has fields with the options' names."""


def taking(
    names: str, *, argument: str = "", kind: type[Experiment] = Recipe, **own: Any
) -> Callable[[Command], Command]:
    """Declare the options that a function takes as keywords, so that typer finds them like those of a signature.

    Args:
        names: The options, in the order of `--help`. Flags are off by default, and all others are None.
        argument: The option that may be given without its name, as the command's argument; the function gets the value
            by the option's name either way.
        kind: What the options describe: a run or a grid.
        own: Options that only this command has, or that have another meaning here; the others are from this module, or
            from the field that they set.
    """
    options: dict[str, Any] = {name: own.get(name) or _declaration(name, kind) for name in names.split()}
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


def field_of(option: str, kind: type[Experiment]) -> FieldInfo | None:
    """Return the field of a recipe that an option sets; None if the option sets none."""
    fields = {**CalibrationSpec.model_fields, **Recipe.model_fields, **kind.model_fields}
    return fields.get(option if option in kind.model_fields else FIELDS.get(option, option))


def of_field(name: str, field: FieldInfo) -> Any:
    """Declare an option that takes what a field takes: a flag for a boolean, a repeatable option for several values."""
    kind: Any = field.annotation
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        kind = list[getattr(item, "__origin__", item)]  # type: ignore[misc]  # a list of what is known at run time
    flag = [f"--{name.replace('_', '-')}"] if kind is bool else []
    return option(kind | None, field.description or "", *flag)


def _declaration(name: str, kind: type[Experiment]) -> Any:
    """Return the declaration of an option, whose help names the default of the field that it sets."""
    field = field_of(name, kind)
    declaration: Any = globals().get(name) or (field and of_field(name, field))
    (declared,) = declaration.__metadata__
    default = "" if field is None or " Default: " in declared.help else _default(field)
    if not default:
        return declaration
    declared = copy(declared)
    declared.help += f" Default: {default}."
    return Annotated[declaration.__origin__, declared]


def _default(field: FieldInfo) -> str:
    """Return the default of a field in words; empty if nothing is set by default."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, ComponentSpec):
        return value.name
    if isinstance(value, dict):
        return ", ".join(value) or "none"
    return "" if value is None or isinstance(value, bool | tuple) else str(value)


_ARGUMENT = "argument"
"""The parameter of a command's argument."""


def _as_argument(name: str, declared: Any) -> Any:
    """Return the declaration of an argument that takes what an option takes."""
    return option(declared.__origin__, f"Short for --{name} {name.upper()}.", argument=name.upper())


calibration = of_field("source", CalibrationSpec.model_fields["source"])
