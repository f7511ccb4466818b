"""The command line. Nothing here imports torch before a command needs it, so that `--help` is fast."""

from __future__ import annotations

import sys

import click
import typer

from layerimp import __version__
from layerimp.cli import evaluate, plugins, prune, run, score
from layerimp.errors import LayerimpError

INTERRUPTED = 130

app = typer.Typer(
    name="layerimp",
    help="Which blocks of a transformer matter, and what it costs to remove the others.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (run, score, prune, evaluate, plugins):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"layerimp {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Show the version.", callback=_version, is_eager=True),
) -> None:
    """Which blocks of a transformer matter, and what it costs to remove the others."""


def main() -> None:
    """Run the command line: exit code 0 done, 2 wrong input (one line), 130 interrupted, 1 anything else."""
    try:
        code = app(standalone_mode=False)
    except LayerimpError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(0)
    except click.UsageError as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; nothing was written", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    # One line, whatever a file name or an error from below put into it.
    sys.stderr.write(f"layerimp: {' '.join(message.split())}\n")
    sys.exit(code)
