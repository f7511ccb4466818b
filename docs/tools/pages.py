"""The code blocks of the pages, and the functions that run them.

```bash                             runs, as ```python does, in the page's order and in one folder
```yaml title="task.yaml"           is a file, which is written there
```bash title="Needs the network"   is only parsed: its commands and options have to exist
```text title="Recorded"            is what a longer run printed; shrunk.py keeps it current
```text title="Output"              is what the block before it printed, and is kept current by regenerate.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^```(\w+)(?: title="([^"\n]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
OUTPUT = "Output"
NEEDS = "Needs "
COMMAND = re.compile(
    r"\blayerimp ((?:shrink|inspect|run|score|prune|heal|evaluate|bench|report|plugins|scorers)\b[^\n|;&>`]*)"
)
_SETS_UP = re.compile(r"^(git clone|cd layerimp|make |pip install)", re.MULTILINE)
"""Commands that install. They are skipped, since the blocks run in an environment where all is installed."""
_OPERATORS = frozenset("|&;<>()$`*?~!")
_SEEN: dict[tuple[str, ...], str] = {}
"""The outputs of commands that depend only on what ships, so that each runs once even if several pages show it."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    code: str

    @property
    def runs(self) -> bool:
        """Whether the block can run in the environment of the tests."""
        if self.title.startswith(NEEDS) or (self.language == "bash" and _SETS_UP.search(self.code)):
            return False
        return self.is_file or self.language in ("bash", "python")

    @property
    def is_file(self) -> bool:
        """Whether the block is a file, whose name is the title."""
        return re.fullmatch(r"[\w./-]+\.\w+", self.title) is not None


def pages() -> list[Path]:
    """Return the README and every page of the site."""
    files = (ROOT / "docs").rglob("*.md")
    return [ROOT / "README.md", *sorted(page for page in files if "plugins" not in page.relative_to(ROOT).parts)]


def blocks(markdown: str) -> list[Block]:
    """Return the fenced blocks, in order."""
    return [Block(language, title or "", code) for language, title, code in FENCE.findall(markdown)]


def command_lines(text: str) -> list[list[str]]:
    """Return the arguments of every layerimp command in a block."""
    return [shlex.split(arguments) for arguments in COMMAND.findall(text.replace("\\\n", " "))]


@dataclass
class Workshop:
    """A folder in which the blocks of one page run, one after the other.

    `layerimp` commands run in this process, through the function behind the command, so that torch is loaded once for
    all pages. Lines that need a shell get one.
    """

    folder: Path
    scope: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})

    def run(self, block: Block) -> str:
        """Run a block, and return its output on stdout, with a reader's folder in place of this one.

        Raises:
            AssertionError: the block failed.
        """
        return self._run(block).replace(str(self.folder.resolve()), "/home/me")

    def _run(self, block: Block) -> str:
        with _inside(self.folder):
            if block.is_file:
                Path(block.title).write_text(block.code, encoding="utf-8")
                return ""
            if block.language == "python":
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(block.code, "<page>", "exec"), self.scope)
                return out.getvalue()
            lines = [_words(line) for line in block.code.replace("\\\n", " ").splitlines()]
            if any(words is None for words in lines):
                return _shell(block.code)
            return "".join(map(self._line, filter(None, lines)))

    def _line(self, words: list[str]) -> str:
        if ">" in words:
            Path(words[-1]).write_text(self._line(words[:-2]), encoding="utf-8")
            return ""
        if words[0] == "export":
            os.environ.update((name, value) for name, _, value in (word.partition("=") for word in words[1:]))
            return ""
        ships = not {"--model", "--calibration", "--output", "--recipe", "--plan", "--tasks", "report"} & set(words)
        if ships and tuple(words) in _SEEN:
            return _SEEN[tuple(words)]
        out = _layerimp(words[1:])
        if ships:
            _SEEN[tuple(words)] = out
        return out


def _words(line: str) -> list[str] | None:
    """Return the words of a line that needs no shell: empty, `export`, or `layerimp`; None for other lines.

    The output of `layerimp` may go to a file: the last two words are then `>` and the file.
    """
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return None
    command = line.rpartition(" > ")[0] if words[-2:-1] == [">"] else line
    plain = not words or words[0] == "export" or (words[0] == "layerimp" and not _OPERATORS & set(command))
    return words if plain else None


def _layerimp(arguments: list[str]) -> str:
    from layerimp.cli import main

    before, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["layerimp", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, handler)
    assert code == 0, f"layerimp {shlex.join(arguments)}\n{err.getvalue()}"
    return out.getvalue()


def _shell(code: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-e", "-c", code], capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before, environment = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        _restore(environment)


def _restore(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def shown(markdown: str) -> list[tuple[Block, str]]:
    """Return the blocks whose output a page shows, each with that output."""
    fenced = blocks(markdown)
    return [(first, second.code) for first, second in pairwise(fenced) if second.title == OUTPUT]


_AXIS = re.compile("[·─├┤●]{9,}")
"""A share on an axis."""
_FREE = re.compile(r"[\d.]+ GiB free")
_TIMES = re.compile(r"^footprint$.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_SCORES = re.compile(r"^\S+: importance of .*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
_GENERATED = re.compile(r"^prompt: .*\n(?:^\S+: .*\n?)+", re.MULTILINE)
"""A prompt and how each model goes on."""
_FIDELITY = re.compile(r"^fidelity: .*?(?=^\S|\Z)|^\S+: divergence [^\n]*", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?%?")
_LIMIT = re.compile(r"--limit (\d+)")
DOCUMENTS = 320
"""The number of documents of each of the starter's tasks without `--limit`."""
TIPPED = 2
"""The number of a task's documents on which processors may disagree, since the two best answers are almost equal."""


def same(shown: str, printed: str, command: str = "") -> bool:
    """Whether two outputs of a command agree.

    The starter computes in float32 on every machine, so a number may differ by one unit of its last printed digit, if
    it is close to a rounding boundary. Shares of documents, such as an accuracy, change by whole documents, and so does
    everything computed from them. Scores of blocks have no such tolerance. Measured times and free memory are not
    compared at all, and neither are axes, which draw the numbers beside them, and generated texts: where a pruned model
    hesitates between two tokens, the last bit decides. Of fidelity, whose numbers hang on such texts and on the few
    tokens of a percentile, only what stands beside the numbers is compared.
    """
    limit = _LIMIT.search(command)
    tipped = TIPPED / (int(limit[1]) if limit else DOCUMENTS)
    texts = [_comparable(text) for text in (shown, printed)]
    scores, others = (" ".join(_SCORES.findall(text)) for text in texts)
    rest, further = (_SCORES.sub("", text) for text in texts)
    return _all_alike(scores, others, 0.0) and _all_alike(rest, further, tipped)


def _comparable(text: str) -> str:
    for left_out in (_TIMES, _FREE, _AXIS, _GENERATED):
        text = left_out.sub("", text)
    return _FIDELITY.sub(lambda place: _NUMBER.sub("N", place[0]), text).rstrip()


def _all_alike(shown: str, printed: str, tipped: float) -> bool:
    # The stars at the best values and their equals depend on the last digits.
    words, others = ([word for word in text.split() if word != "*"] for text in (shown, printed))
    return len(words) == len(others) and all(_alike(*pair, tipped) for pair in zip(words, others, strict=True))


def _alike(word: str, other: str, tipped: float) -> bool:
    if word == other:
        return True
    numbers, further = _NUMBER.findall(word), _NUMBER.findall(other)
    if _NUMBER.sub("", word) != _NUMBER.sub("", other) or len(numbers) != len(further):
        return False
    return all(map(partial(_near, tipped), numbers, further))


def _near(tipped: float, number: str, other: str) -> bool:
    """Whether two numbers are equal up to the last digit, or up to the documents on which processors may disagree."""
    if "." not in number + other:
        return number == other  # a count, or a rank
    first, second = _number(number), _number(other)
    whole = 100.0 if "%" in number else 1.0
    leave = tipped * whole if max(abs(first), abs(second)) <= whole else 0.0
    return abs(first - second) <= max(1.01 * min(map(_unit, (number, other))), leave)


def _unit(number: str) -> float:
    """Return one unit of the last printed digit."""
    digits, _, exponent = number.rstrip("%").partition("e")
    decimals = len(digits.partition(".")[2])
    return float(10.0 ** (int(exponent or 0) - decimals))


def _number(text: str) -> float:
    return float(text.rstrip("%").replace(",", ""))
