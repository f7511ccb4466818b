"""The command line. torch is imported only when a command needs it, so that `--help` is fast."""

from __future__ import annotations

import gc
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any

import typer

from layerimp._version import __version__
from layerimp.cli import bench, cache, compare, heal, inspection, plans, plugins, runs, shrink
from layerimp.cli.help import GroupedCommand
from layerimp.cli.streams import after_writing, for_results_alone
from layerimp.errors import LayerimpError, PluginWarning, first_problem

INTERRUPTED = 130
FULL_COLLECTIONS = 1000
"""The number of collections of young objects before a collection of all objects."""
NOTHING_LEFT = "nothing is left half-written"
_NOT_TAKEN = ("No such option", "Got unexpected extra argument")
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""click, which newer versions of typer include."""


class InterruptError(Exception):
    """An interrupt in the course of a command, with the notes on how to go on. Typer drops a `KeyboardInterrupt`."""


def _at_work(command: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command so that stdout gets its results alone, and the notes on an interrupt are not lost."""

    @wraps(command)
    def at_work(**options: Any) -> Any:
        try:
            with for_results_alone():
                return command(**options)
        except KeyboardInterrupt as interrupt:
            raise InterruptError("; ".join(getattr(interrupt, "__notes__", ())) or NOTHING_LEFT) from None

    return at_work


app = typer.Typer(
    name="layerimp",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)
_PARTS = (runs.run, runs.score, runs.prune, heal.heal, runs.evaluate, compare.compare, plans.plan)
_MODELS = (shrink.shrink, inspection.inspect, *_PARTS)
_LISTS = (plugins.plugins, plugins.scorers, plugins.pruners, plugins.healers, plugins.evaluators, plugins.tasks)
for command in (*_MODELS, bench.bench, bench.report, *_LISTS, cache.cache):
    summary = (command.__doc__ or "").partition("\n")[0]  # which click would cut, were it not given
    app.command(cls=GroupedCommand, short_help=summary)(_at_work(command))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"layerimp {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_version, is_eager=True),
) -> None:
    """Which blocks of a transformer matter, and what it costs to remove the others."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 wrong input (one line), 130 interrupted, 1 anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", PluginWarning)
        # Full collections go through everything that torch and transformers define, which takes a second for nothing.
        gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTIONS)
        warnings.showwarning = partial(_warn, warnings.showwarning)
        _run()


def _run() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's way to interrupt
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, signal.default_int_handler)  # the terminal was closed
    try:
        with after_writing():
            code = app(standalone_mode=False)
    except LayerimpError as error:
        _fail(str(error), error.exit_code)
    except UsageError as error:
        _fail(_usage(error), 2)
    except InterruptError as interrupt:
        _fail(f"interrupted; {interrupt}", INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # of torch, which the command line does not import
            what = ". ".join(str(error).split(". ")[:2])
            _fail(f"{what}; --batch-size 1 and a lower --max-length take less memory", 1)
        raise
    if code == INTERRUPTED:
        _fail(f"interrupted; {NOTHING_LEFT}", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: Exception) -> str:
    """What is wrong with a command line, and the value that is wrong, which the parser of options leaves out."""
    from pydantic import ValidationError

    message = str(getattr(error, "format_message", error.__str__)()).replace("Value error, ", "")
    if message.startswith(_NOT_TAKEN):
        message += f"; see layerimp {context.info_name} --help" if (context := getattr(error, "ctx", None)) else ""
    given = repr(first_problem(error.__cause__).value) if isinstance(error.__cause__, ValidationError) else ""
    return message if given in message else f"{message}, got {given}"


def _fail(message: str, code: int) -> None:
    with suppress(OSError):
        sys.stderr.write(f"layerimp: {_line(message)}\n")
    sys.exit(code)


def _warn(others: Any, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning about a plugin in one line; show other warnings as usual."""
    if issubclass(category, PluginWarning):
        sys.stderr.write(f"layerimp: {_line(str(message))}\n")
    else:
        others(message, category, *where, **more)


def _line(message: str) -> str:
    """Return a message as one line, even if a file name or an error of a library has line breaks."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(message.split()))
