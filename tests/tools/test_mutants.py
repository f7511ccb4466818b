"""The list of mutants fits the sources."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("mutants", ROOT / "tools" / "mutants.py")
assert spec is not None
assert spec.loader is not None
tool = importlib.util.module_from_spec(spec)
sys.modules["mutants"] = tool
spec.loader.exec_module(tool)


def test_the_old_text_of_every_mutant_is_found_once_and_the_mutated_file_parses():
    problems = []
    for mutant in tool.mutants():
        try:
            source = (ROOT / mutant.file).read_text(encoding="utf-8")
            ast.parse(mutant.applied(source))
        except (tool.MutantError, OSError, SyntaxError) as error:
            problems.append(str(error))
    assert problems == []


def test_names_are_unique_and_tests_exist():
    known = tool.mutants()
    assert len({mutant.name for mutant in known}) == len(known)
    assert {mutant.kind for mutant in known} == {"core", "plumbing"}
    assert [test for mutant in known for test in mutant.tests if not (ROOT / test.partition("::")[0]).is_file()] == []
    assert all(mutant.tests for mutant in known)
