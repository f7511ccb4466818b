"""What strangers may import is documented and small, and the shipped plugins import nothing else."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import layerimp

ROOT = Path(__file__).parents[1]
REFERENCE = "\n".join(page.read_text() for page in sorted((ROOT / "docs").rglob("*.md")))
DOCUMENTED = frozenset(re.findall(r"^::: (layerimp\S*)$", REFERENCE, re.MULTILINE))
PLUGINS = sorted((ROOT / "plugins").glob("*/layerimp_*")) + sorted((ROOT / "docs" / "plugins").glob("*/*.py"))
SOURCES = [file for place in PLUGINS for file in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
HELD_AT = {"layerimp.evaluator": "layerimp", "layerimp.scorer": "layerimp", "layerimp.pruner": "layerimp"}
"""Contracts can be imported from the file that holds them as well as from the top."""


def imported(file: Path) -> Iterator[str]:
    """The dotted names of layerimp's own that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "layerimp":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("layerimp."))


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_plugin_imports_documented_names_alone(file: Path) -> None:
    for name in imported(file):
        module, _, last = name.rpartition(".")
        known = {name, f"{HELD_AT.get(module, module)}.{last}"} & DOCUMENTED
        assert known or name == "layerimp.errors.LayerimpError", f"{name} is not in the reference"


def test_an_undocumented_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from layerimp.surgery.removal import prepare\nimport layerimp.recipe\n")
    assert list(imported(tmp_path / "mine.py")) == ["layerimp.surgery.removal.prepare", "layerimp.recipe"]
    assert "layerimp.surgery.removal.prepare" not in DOCUMENTED
    assert len(SOURCES) > 30


def test_the_top_holds_what_the_reference_says() -> None:
    top = {name.removeprefix("layerimp.") for name in DOCUMENTED if name.count(".") == 1}
    assert sorted(top) == sorted(layerimp.__all__)


@pytest.mark.parametrize("package", ["blocks", "calibration", "models", "report", "sweep"])
def test_what_a_package_exports_is_documented(package: str) -> None:
    module = importlib.import_module(f"layerimp.{package}")
    assert {f"layerimp.{package}.{name}" for name in module.__all__} <= DOCUMENTED


def test_the_root_is_small() -> None:
    modules = sorted((ROOT / "layerimp").glob("*.py"))
    assert len([file for file in modules if not file.name.startswith("_")]) <= 14
    assert all(file.name == "__init__.py" or file.read_text().startswith('"""') for file in modules)


def test_the_public_names() -> None:
    functions = (
        "load find_blocks score prune read_plans heal save run shrink evaluate compare run_grid hookimpl".split()
    )
    classes = "Scorer Pruner Healer Evaluator Importance Metric Likelihood PrunePlan Recipe Grid LayerimpError".split()
    assert layerimp.__all__ == sorted([*functions, *classes])
    assert set(layerimp.__all__) <= set(dir(layerimp))
    assert SimpleNamespace(**{name: getattr(layerimp, name) for name in layerimp.__all__})
    with pytest.raises(AttributeError, match="no attribute 'scoer'"):
        _ = layerimp.scoer


def test_importing_it_imports_no_torch() -> None:
    code = "import json, sys, layerimp, layerimp.cli, layerimp.registry.loader; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "layerimp.hookspecs" in loaded
    assert not loaded & {"torch", "transformers", "lm_eval", "datasets", "numpy"}
