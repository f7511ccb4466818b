"""Healing as a dimension of a grid: its cells, its repeats and its assignments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.grids import BLOCKS, HEALED, Arithmetic, drive, layout

from layerimp.bench.cell_graph import Layout
from layerimp.bench.cells import Cell
from layerimp.bench.store import Store


def evaluated(executor: Arithmetic) -> list[Cell]:
    return [cell for cell in executor.cells if cell.kind == "evaluation" and cell.content["blocks"]]


def test_a_healer_adds_cells_and_changes_none(tmp_path: Path) -> None:
    def keys(name: str, **changes: Any) -> set[str]:
        drive(tmp_path / name, Arithmetic(), **changes)
        with Store(tmp_path / name, write=False) as store:
            return set(store.records())

    assert keys("without", counts=[2], ratios=[]) < keys("healed", **HEALED)


def test_a_store_without_healers_is_read() -> None:
    document = layout().model_dump(mode="json")
    del document["healers"], document["grid"]["healers"]
    for subject in document["models"].values():
        del subject["recipe"]["healers"]
    assert Layout.model_validate(document) == layout()


def test_every_repeat_heals_on_its_own_text(tmp_path: Path) -> None:
    executor = Arithmetic()
    made_layout, _ = drive(tmp_path, executor, **HEALED | {"repeats": 3, "tasks": ["mood"]})
    repeats = {label: made_layout.repeats(contender) for label, contender in made_layout.contenders.items()}
    assert repeats["avss"] == repeats["avss+linear"] == [(0, 0), (1, 1), (2, 2)]
    assert repeats["random"] == repeats["random+linear"] == [(n, n) for n in range(10)]
    # What no text changes is scored once, and healed on the text of every repeat.
    assert (repeats["depth"], repeats["depth+linear"]) == ([(0, 0)], [(0, 0), (0, 1), (0, 2)])
    first = sorted(range(BLOCKS))[-2:]  # depth removes the last blocks
    seeds = [each.content["healing"]["calibration"]["seed"] for each in evaluated(executor) if each.healer]
    mine = [cell for cell in evaluated(executor) if cell.content["blocks"] == first]
    assert sum(not cell.healer for cell in mine) == 1
    assert {cell.seed for cell in mine if cell.healer} >= {0, 1, 2}
    assert set(seeds) == set(range(10))


def test_the_text_of_a_repeat_is_what_its_scorers_read() -> None:
    made_layout = layout(**HEALED | {"seed": 7})
    measure = made_layout.models["one"].measures[0]
    scoring, healed = made_layout.scoring("one", "avss", 2), made_layout.evaluation("one", (1,), measure, "linear", 2)
    assert healed.content["healing"]["calibration"] == scoring.content["calibration"]
    assert healed.seed == scoring.seed == 9
    assert str(healed) == "evaluate mood on one without block 1, healed by linear (seed 9)"


def test_what_changes_healing_is_another_cell() -> None:
    def cell(text: int = 0, **changes: Any) -> Cell:
        made_layout = layout(**HEALED | changes)
        return made_layout.evaluation("one", (1,), made_layout.models["one"].measures[0], "linear", text)

    other = layout(**HEALED)
    edited = other.model_copy(update={"healers": {"linear": other.healers["linear"].model_copy(update={"code": "1"})}})
    different = [
        cell(),
        cell(1),
        cell(calibration={"samples": 3}),
        cell(healers={"linear": {"options": {"ridges": [0.1]}}}),
        cell(healers={"linear": {"name": "rescale"}}),
        cell(batch_size=1),  # a healer that trains makes its steps from batches
        cell(allow_overlap=True),
        cell(seed=1),  # the same text as the second draw's, judged on documents that other draws leave
        cell(repeats=11),
        edited.evaluation("one", (1,), edited.models["one"].measures[0], "linear", 0),
    ]
    assert len({each.key for each in different}) == len(different)


def test_unhealed_cells_go_by_no_setting_of_healing() -> None:
    def cell(**changes: Any) -> Cell:
        made_layout = layout(**HEALED | changes)
        return made_layout.evaluation("one", (1,), made_layout.models["one"].measures[0])

    assert cell().key == cell(batch_size=1).key == cell(allow_overlap=True).key


def test_equal_choices_of_one_repeat_share_a_healed_cell(tmp_path: Path) -> None:
    alone, both = Arithmetic(), Arithmetic()
    drive(tmp_path / "alone", alone, **HEALED | {"scorers": ["avss"]})
    drive(tmp_path / "both", both, **HEALED | {"scorers": {"avss": None, "twin": {"name": "avss"}}})
    assert {cell.key for cell in evaluated(alone)} == {cell.key for cell in evaluated(both)}


def test_a_healed_model_is_one_assignment_with_all_its_tasks(tmp_path: Path) -> None:
    executor = Arithmetic()
    made_layout, _ = drive(tmp_path, executor, **HEALED | {"repeats": 2, "seed": 4})
    subject = made_layout.models["one"]
    assert {len(each.cells) for each in executor.assignments if each.cells[0].healer} == {len(subject.measures)}
    for assignment in executor.assignments:
        if assignment.cells[0].kind == "evaluation":
            assert all(measure.task == cell.content["task"] for cell, measure in assignment.measured())
