"""The keys of a grid's cells: they depend on content, not on where it lies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import layerimp_avss
import pytest
import torch
from huggingface_hub import constants
from pydantic import create_model
from support.fake_plugins import Install, Plug
from support.heard import Heard
from support.mood import mood
from support.tiny import tiny

from layerimp.bench.cell_graph import Layout
from layerimp.bench.digests import FileDigests
from layerimp.bench.engine import Engine
from layerimp.bench.grid import Grid
from layerimp.bench.resolve import resolve
from layerimp.component import Options
from layerimp.errors import TaskError
from layerimp.evaluator import Evaluator, Metric
from layerimp.models import loading
from layerimp.progress import SILENT, Progress
from layerimp.recipe import Permissions, validated


@pytest.fixture
def place(tmp_path: Path, model_dir: Path, calibration_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a text and a task, where the user stands."""
    here = tmp_path / "here"
    shutil.copytree(model_dir, here / "model")
    shutil.copy(calibration_file, here / "text.jsonl")
    mood(here)
    monkeypatch.chdir(here)
    return here


def settled(before: Layout | None = None, progress: Progress = SILENT, **changes: Any) -> Layout:
    values = {
        "models": {"tiny": "model"},
        "scorers": ["avss", "perplexity", "cim"],
        "tasks": ["mood.yaml"],
        "calibration": {"source": "text.jsonl", "samples": 4, "max_length": 16},
    }
    grid = validated(Grid, values | changes)
    return resolve(grid, FileDigests({}), Engine(device="cpu"), Permissions(), progress, before)[0]


def keys(layout: Layout) -> list[str]:
    (measure,) = layout.models["tiny"].measures
    return [layout.scoring("tiny", "avss", 0).key, layout.evaluation("tiny", (1,), measure).key]


def test_paths_hold_wherever_a_worker_is(place: Path) -> None:
    recipe = settled(data_dir=".").models["tiny"].recipe
    paths = [recipe.model, recipe.calibration.source, *(recipe.tasks or ()), recipe.data_dir]
    assert list(map(str, paths)) == list(map(str, [place / "model", place / "text.jsonl", place / "mood.yaml", place]))


def test_cells_go_by_content_and_not_by_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(settled())
    shutil.copytree(place, place.parent / "there")
    monkeypatch.chdir(place.parent / "there")
    (Path("model") / "README.md").write_text("read me")
    assert keys(settled()) == before


@pytest.mark.parametrize(
    ("file", "changed"),
    [("model/config.json", [True, True]), ("text.jsonl", [True, False]), ("docs.jsonl", [False, True])],
)
def test_what_changes_is_another_cell(place: Path, file: str, changed: list[bool]) -> None:
    before = keys(settled())
    path = place / file
    if path.suffix == ".json":
        path.write_text(path.read_text() + "\n")
    else:
        path.write_text(path.read_text().replace("the", "a", 1).replace("cat", "dog", 1))
    assert [old != new for old, new in zip(before, keys(settled()), strict=True)] == changed


def test_a_text_that_shares_documents_with_the_tasks_is_noted(place: Path) -> None:
    def notes(**changes: Any) -> list[str]:
        heard = Heard()
        settled(progress=heard, **changes)
        return [line for line in heard.lines if "documents with the tasks" in line]

    assert notes() == []
    text, asked = Path("text.jsonl").read_text(), Path("docs.jsonl").read_text().splitlines()[0]
    Path("text.jsonl").write_text(f"{text.rstrip()}\n{asked}\n")
    (line,) = notes()
    count = len(text.splitlines()) + 1
    assert line.startswith(f"the text of {place / 'text.jsonl'} shares 1 of its {count} documents with the tasks: ")
    assert notes(allow_overlap=True) == []


def test_an_edited_plugin_is_another_scorer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(settled())
    source = Path(str(layerimp_avss.__file__)).read_text()
    (place / "layerimp_avss.py").write_text(source + "# edited\n")
    monkeypatch.setattr(layerimp_avss, "__file__", str(place / "layerimp_avss.py"))
    assert keys(settled())[0] != before[0]


def test_what_is_known_of_the_scorers(place: Path) -> None:
    scorers = settled().scorers
    assert {label for label, scorer in scorers.items() if scorer.blind} == {"random", "depth"}
    assert {label for label, scorer in scorers.items() if scorer.seeded} == {"random"}


def test_what_a_model_computes_in_is_decided_once_and_names_its_cells(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of bfloat16 and of float32 never meet in one store, and workers do not choose between them."""
    tiny("llama", dtype=torch.bfloat16).save_pretrained(place / "model")
    stored = settled()
    monkeypatch.setenv("LAYERIMP_CPU_HALF", "float32")
    computed = settled()
    assert (stored.models["tiny"].recipe.dtype, computed.models["tiny"].recipe.dtype) == ("bfloat16", "float32")
    assert not set(keys(stored)) & set(keys(computed))
    assert settled(models={"tiny": {"model": "model", "dtype": "float32"}}).models["tiny"].identity == (
        computed.models["tiny"].identity
    )


@pytest.mark.parametrize(("free", "dtype"), [(0, "bfloat16"), (10**12, "float32")])
def test_what_a_model_computes_in_stays_where_a_grid_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, free: int, dtype: str
) -> None:
    """Other programs take and free memory; the cells in the store are kept all the same."""
    tiny("llama", dtype=torch.bfloat16).save_pretrained(place / "model")
    monkeypatch.setenv("LAYERIMP_CPU_HALF", "float32")
    monkeypatch.setattr(loading, "free_bytes", lambda _: free)
    before = settled()
    monkeypatch.setattr(loading, "free_bytes", lambda _: 10**12 - free)
    now = settled(before)
    assert before.models["tiny"].recipe.dtype == now.models["tiny"].recipe.dtype == dtype
    assert keys(now) == keys(before)
    asked = settled(models={"tiny": {"model": "model", "dtype": dtype}})
    assert settled(asked).models["tiny"].recipe.dtype != dtype, "what was asked for is no decision"


def test_whether_plans_are_nested_depends_on_the_options(place: Path) -> None:
    exchanging = {"name": "greedy", "options": {"exchange": 1}}
    pruners = settled(pruners={"greedy": {}, "exchanging": exchanging, "window": {}}).pruners
    assert {label: pruner.nested for label, pruner in pruners.items()} == {
        "greedy": True,
        "exchanging": False,
        "window": False,
    }


def test_another_revision_on_the_hub_is_another_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    cached = place / "hub" / "models--someone--tiny"
    by_revision = []
    for revision in ("a" * 40, "b" * 40):
        shutil.copytree(place / "model", cached / "snapshots" / revision)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / "main").write_text(revision)
        by_revision.append(keys(settled(models={"tiny": "someone/tiny"})))
    assert not set(by_revision[0]) & set(by_revision[1])
    assert keys(settled(models={"tiny": "someone/tiny"})) == by_revision[1]


def test_two_tasks_of_one_name_are_refused(place: Path) -> None:
    """Otherwise the figures of one would take the place of the other's."""
    shutil.copytree(place, place / "again")
    with pytest.raises(TaskError, match="two of the tasks are named 'mood'"):
        settled(tasks=["mood.yaml", "again/mood.yaml"])


def test_tasks_of_an_evaluator_without_a_fingerprint_are_apart(install: Install, plugged: Plug, place: Path) -> None:
    class Silent(Evaluator):
        name = "silent"
        kind = "quality"
        Config = create_model(
            "Config", __base__=Options, tasks=(tuple[str, ...], ()), limit=(int | None, None), batch_size=(int, 8)
        )

        def evaluate(self, model: Any, tokenizer: Any) -> list[Metric]:
            raise NotImplementedError

    plugged(install("silent", layerimp_evaluators=lambda: [Silent]))

    def tags(**changes: Any) -> list[str]:
        layout = settled(tasks=["one", "other"], evaluators=["silent"], **changes)
        return [measure.tag for measure in layout.models["tiny"].measures]

    assert len({*tags(), *tags(limit=3)}) == 4
    assert tags() == tags(batch_size=3)
    assert tags() == tags(num_fewshot=2)  # which is no option of this evaluator


def test_settings_for_tasks_leave_the_fidelity_as_it_is(place: Path) -> None:
    def keys(**changes: Any) -> list[str]:
        layout = settled(**changes)
        subject = layout.models["tiny"]
        return [layout.evaluation("tiny", (1,), measure).key for measure in (*subject.measures, subject.comparison)]

    (task, fidelity), (task_limited, fidelity_limited) = keys(), keys(limit=3, data_dir=".")
    assert task_limited != task
    assert fidelity_limited == fidelity
