"""Every code block of the README and the docs runs: commands in a shell, Python in one namespace per page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import layerimp
from layerimp.bench.grid import Grid
from layerimp.registry import registry

ROOT = Path(layerimp.__file__).parents[1]
FOLLOWED_ELSEWHERE = {"write-a-scorer.md"}
"""Pages whose commands need what they install; see test_third_party.py."""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = {"bash", "python"}
SHOWN = {"text", "toml", "yaml"}
SETS_UP = re.compile(r"^(git clone|cd layerimp|make |pip install)", re.MULTILINE)
"""Commands that install; what they lead to is the environment that the tests run in."""


@pytest.fixture
def workshop(tmp_path: Path, model_dir: Path, calibration_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pages speak of: my-model, text.jsonl and mood.yaml."""
    shutil.copytree(model_dir, tmp_path / "my-model")
    lines = calibration_file.read_text().splitlines()
    (tmp_path / "text.jsonl").write_text("\n".join(lines * 40))  # enough for the defaults
    offline = (ROOT / "docs" / "how-to" / "offline.md").read_text()
    (task,) = (code for language, code in FENCE.findall(offline) if language == "yaml")
    (tmp_path / "mood.yaml").write_text(task)
    (tmp_path / "docs.jsonl").write_text(
        "\n".join(f'{{"text": "the cat was {word}", "label": {i % 2}}}' for i, word in enumerate(["big", "small"] * 4))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_blocks_run(page: Path, workshop: Path) -> None:
    if page.name in FOLLOWED_ELSEWHERE:
        return
    scope: dict[str, Any] = {"__name__": "page"}
    for language, code in FENCE.findall(page.read_text()):
        assert language in RUN | SHOWN, f"a block in {language!r} that nothing checks"
        if language == "python":
            exec(compile(code, str(page), "exec"), scope)
        elif language == "bash" and not SETS_UP.search(code):
            done = subprocess.run(["bash", "-e", "-c", code], capture_output=True, text=True, cwd=workshop)
            assert done.returncode == 0, f"{code}\n{done.stderr}"
        elif language == "yaml":
            list(yaml.safe_load_all(code))
        if language == "yaml" and code.startswith("models:"):
            (workshop / "grid.yaml").write_text(code)
        elif language == "yaml" and code.startswith("model:"):
            (workshop / "recipe.yaml").write_text(code)
            done = subprocess.run(
                ["layerimp", "run", "--recipe", "recipe.yaml"], capture_output=True, text=True, cwd=workshop
            )
            assert done.returncode == 0, done.stderr


def test_no_block_goes_unnoticed() -> None:
    for page in PAGES:
        assert page.read_text().count("```") == 2 * len(FENCE.findall(page.read_text())), page


def test_everything_has_its_page() -> None:
    texts = {path.name: path.read_text() for path in PAGES}
    everything = "\n".join(texts.values())
    for kind in ("scorer", "pruner", "evaluator"):
        for name in registry().names(kind):
            assert name in everything, name
    for option in registry().get("scorer", "avss").Config.model_fields:
        assert f"`{option}" in texts["avss.md"], option
    for command in ("run", "score", "prune", "evaluate", "bench", "report", "plugins", "scorers"):
        assert f"`layerimp {command}" in texts["cli.md"], command
    for field in Grid.model_fields.keys() - {"schema_version"}:
        assert f"`{field}`" in texts["bench.md"], field
    for name in layerimp.__all__:
        assert name in texts["python.md"], name
    for hook in ("layerimp_scorers", "layerimp_pruners", "layerimp_evaluators", "layerimp_assets", "layerimp_blocks"):
        assert hook in texts["write-a-plugin.md"]


def test_every_page_is_in_the_menu() -> None:
    menu = yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in menu
