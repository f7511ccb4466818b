"""Applies the mutants of `mutants.toml` to a copy of the working tree, one at a time, and says which the tests kill.

A mutant is a small edit that breaks one thing: `python tools/mutants.py --output build/mutants.json` applies all of
them, and goes on where an earlier run with the same output was interrupted. Code that moves takes its mutants along:
their `file` and `function` then name the new place.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tools" / "mutants.toml"
LONGEST = 1200
"""A run of tests that takes so many seconds hangs, which counts as killed."""


class MutantError(Exception):
    """The list of mutants does not fit the sources, or the tests cannot run."""


@dataclass(frozen=True)
class Mutant:
    """An edit that breaks one thing.

    Attributes:
        name: What it breaks, in a few words joined by hyphens.
        what: The same in a sentence.
        kind: `core` for the numerical core, `plumbing` for everything around it.
        file: The file, from the root of the repository on.
        function: The qualified name of the function; inner functions follow a dot.
        old: The text to replace, which occurs in the function once.
        new: What takes its place.
        tests: The files or names of tests that are expected to notice.
    """

    name: str
    what: str
    kind: str
    file: str
    function: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, source: str) -> str:
        """Return the source of the file with the edit.

        Raises:
            MutantError: the function is missing, or does not hold the text exactly once.
        """
        lines = source.splitlines(keepends=True)
        first, last = self._lines(ast.parse(source))
        body = "".join(lines[first:last])
        if (count := body.count(self.old)) != 1:
            raise MutantError(f"{self.name}: {self.function} in {self.file} holds its old text {count} times, not once")
        return "".join([*lines[:first], body.replace(self.old, self.new), *lines[last:]])

    def _lines(self, tree: ast.AST) -> tuple[int, int]:
        """Return the first line of the function, counted from 0, and the line after its last."""
        node = tree
        for part in self.function.split("."):
            inner = (child for child in _definitions(node) if child.name == part)
            found = next(inner, None)
            if found is None:
                raise MutantError(f"{self.name}: {self.file} has no {self.function}")
            node = found
        assert isinstance(node, ast.FunctionDef | ast.ClassDef)
        assert node.end_lineno is not None
        return node.lineno - 1, node.end_lineno


def _definitions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield the functions and classes inside a node, but not those inside of them."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield child
        else:
            yield from _definitions(child)


def mutants() -> list[Mutant]:
    """Read the list."""
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))["mutants"]
    return [Mutant(**entry | {"tests": tuple(entry["tests"])}) for entry in entries]


def copied(directory: Path) -> None:
    """Copy the working tree, without what git ignores."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)


def tested(tree: Path, tests: Sequence[str]) -> str:
    """Run tests in a copy of the working tree until one fails; return its name, and nothing if all pass.

    Raises:
        MutantError: pytest cannot run the tests.
    """
    paths = [str(tree), *map(str, sorted((tree / "plugins").iterdir()))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return f"no end after {LONGEST} s"
    if done.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
    if failed is None or done.returncode not in (1, 2):
        raise MutantError(f"pytest ends with {done.returncode}: {(done.stdout + done.stderr).strip()[-400:]}")
    return failed[1]


def killer(mutant: Mutant, tree: Path, *, whole: bool) -> str:
    """Return the test that fails with a mutant; nothing if it survives."""
    path = tree / mutant.file
    source = path.read_text(encoding="utf-8")
    compiled = Path(importlib.util.cache_from_source(str(path)))  # may be as old and as long as the mutant
    try:
        path.write_text(mutant.applied(source), encoding="utf-8")
        compiled.unlink(missing_ok=True)
        return tested(tree, mutant.tests) or (tested(tree, ()) if whole else "")
    finally:
        path.write_text(source, encoding="utf-8")
        compiled.unlink(missing_ok=True)


def judged(chosen: Sequence[Mutant], jobs: int, *, whole: bool) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with the test that kills it, or with nothing."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            tree = Path(directory, str(number))
            copied(tree)
            trees.put(tree)

        def judge(mutant: Mutant) -> str:
            tree = trees.get()
            try:
                return killer(mutant, tree, whole=whole)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(jobs) as pool:
            yield from zip(chosen, pool.map(judge, chosen), strict=True)


def check(chosen: Sequence[Mutant]) -> None:
    """Refuse mutants that do not fit the sources.

    Raises:
        MutantError: one of them does not.
    """
    for mutant in chosen:
        path = ROOT / mutant.file
        if not path.is_file():
            raise MutantError(f"{mutant.name}: there is no {mutant.file}")
        mutant.applied(path.read_text(encoding="utf-8"))


def table(known: Sequence[Mutant], killers: dict[str, str]) -> Table:
    """Return a row for each mutant that was tried."""
    shown = Table("mutant", "kind", "killed by")
    for mutant in known:
        shown.add_row(mutant.name, mutant.kind, killers[mutant.name] or "[bold]survived")
    return shown


def run(options: argparse.Namespace) -> None:
    """Apply the requested mutants, and print which survive.

    Raises:
        MutantError: there is no such mutant, or one does not fit the sources.
    """
    known = mutants()
    if unknown := sorted(set(options.names) - {mutant.name for mutant in known}):
        raise MutantError(f"there is no mutant {unknown[0]}")
    chosen = [mutant for mutant in known if not options.names or mutant.name in options.names]
    check(chosen)
    console = Console()
    if options.list:
        for mutant in chosen:
            console.print(f"{mutant.name}: {mutant.what}", highlight=False, soft_wrap=True)
        return
    if options.unchanged:
        with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
            copied(Path(directory))
            failed = tested(Path(directory), sorted({test for mutant in chosen for test in mutant.tests}))
        if failed:
            raise MutantError(f"without a mutant, {failed} fails")
        return
    output: Path | None = options.output
    finished: dict[str, Any] = json.loads(output.read_text()) if output is not None and output.exists() else {}
    finished = {m.name: finished[m.name] for m in chosen if finished.get(m.name, {}).get("mutant") == _plain(m)}
    left = [mutant for mutant in chosen if mutant.name not in finished]
    for mutant, failing in judged(left, options.jobs, whole=options.whole):
        console.print(f"{mutant.name}: {failing or 'survived'}", highlight=False, soft_wrap=True)
        finished[mutant.name] = {"mutant": _plain(mutant), "killed_by": failing}
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(finished, indent=1) + "\n")
    killers = {name: result["killed_by"] for name, result in finished.items()}
    console.print(table(chosen, killers))
    console.print(f"{sum(map(bool, killers.values()))} of {len(chosen)} killed", highlight=False)


def _plain(mutant: Mutant) -> dict[str, Any]:
    """Return a mutant as plain data; one that has changed is applied again."""
    return asdict(mutant) | {"tests": list(mutant.tests)}


def main() -> None:
    """Run the command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="the mutants to apply; all by default")
    parser.add_argument("--list", action="store_true", help="list the mutants, and apply none")
    parser.add_argument("--unchanged", action="store_true", help="check that their tests pass without any mutant")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at the same time")
    parser.add_argument("--whole", action="store_true", help="let a mutant that its tests miss meet the whole suite")
    parser.add_argument("--output", type=Path, help="a JSON file of results, from which an interrupted run goes on")
    try:
        run(parser.parse_args())
    except MutantError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
