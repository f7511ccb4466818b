"""The scheduler: what is computed, how often, and what is left after an interruption."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.grids import BLOCKS, METRICS, Arithmetic, attempts, computed, drive, layout

from layerimp.bench import scheduler
from layerimp.bench.cell_graph import Layout, Measure
from layerimp.bench.cells import Cell, Result
from layerimp.bench.store import Store

REPEATS = 3


def kinds(executor: Arithmetic) -> Counter[str]:
    return Counter(cell.kind for cell in executor.cells)


def test_one_scoring_by_all_scorers_per_model_and_repeat(tmp_path: Path) -> None:
    executor = Arithmetic()
    drive(tmp_path, executor, repeats=REPEATS, random_draws=7)
    scorings = [each for each in executor.assignments if each.cells[0].kind == "scoring"]
    together = sorted(sorted(cell.scorer for cell in each.cells) for each in scorings)
    assert together == [["avss", "block-influence", "gbis"]] * REPEATS + [["depth", *["random"] * 7]]
    assert {each.first.seed for each in scorings if each.first.scorer != "random"} == set(range(REPEATS))


def test_no_model_is_evaluated_twice(tmp_path: Path) -> None:
    executor = Arithmetic()
    made, _ = drive(tmp_path, executor, repeats=REPEATS, counts=[1, 3], ratios=[0.25])
    evaluated = Counter(
        (cell.content["task"], tuple(cell.content["blocks"])) for cell in executor.cells if "task" in cell.content
    )
    assert set(evaluated.values()) == {1}
    assert {(task, ()) for task in METRICS} <= evaluated.keys()
    with Store(tmp_path, write=False) as store:
        records = store.records()
        assert set(attempts(store).values()) == {1}
    wanted = made.cells(lambda key: records[key].result, "one")
    assert wanted.keys() == records.keys()


def test_a_finished_grid_needs_no_engine(tmp_path: Path) -> None:
    drive(tmp_path, Arithmetic())
    executor = Arithmetic()
    drive(tmp_path, executor)
    assert executor.cells == []


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({"repeats": 3}, {"scoring": 3, "evaluation": None}),
        ({"scorers": ["avss", "gbis", "lrp"]}, {"scoring": 2, "costing": 1, "evaluation": None}),
        ({"ratios": [0.25, 0.5]}, {"evaluation": None}),
        ({"batch_size": 3}, {}),
        ({"tasks": ["prose", "mood"]}, {}),
        ({"scorers": {"mine": "avss", "gbis": None}}, {}),
    ],
)
def test_a_changed_recipe_adds_only_what_is_new(
    tmp_path: Path, changes: dict[str, Any], added: dict[str, int | None]
) -> None:
    drive(tmp_path, Arithmetic(), repeats=2)
    executor = Arithmetic()
    drive(tmp_path, executor, **{"repeats": 2, **changes})
    counts = kinds(executor)
    assert counts.keys() <= added.keys()
    assert {kind: counts[kind] for kind, count in added.items() if count} == {k: c for k, c in added.items() if c}


def test_two_names_of_one_model_are_one(tmp_path: Path) -> None:
    first = layout()
    other = first.models["one"].model_copy(
        update={"measures": (Measure(evaluator="harness", task="prose", tag="prose"),)}
    )
    twins = first.model_copy(update={"models": {"other": other, "one": first.models["one"]}})
    executor, alone = Arithmetic(), Arithmetic()
    for made, computing, name in ((twins, executor, "twins"), (first, alone, "alone")):
        drive(tmp_path / name, computing, made)
    assert {cell.key for cell in executor.cells} == {cell.key for cell in alone.cells}
    assert len(executor.cells) == len(alone.cells)


def test_a_failure_is_kept_and_tried_again_on_request(tmp_path: Path) -> None:
    def broken(cell: Cell) -> Result:
        if cell.kind == "scoring" and cell.content["scorer"] == "gbis":
            raise ValueError("no gradients here")
        return computed(cell)

    _, watching = drive(tmp_path, Arithmetic(what=broken), repeats=2)
    assert watching.failures == [f"score one by gbis (seed {seed}): no gradients here" for seed in (0, 1)]
    again = Arithmetic()
    drive(tmp_path, again, repeats=2)
    assert again.cells == []
    drive(tmp_path, again, repeats=2, retry=True)
    assert kinds(again)["scoring"] == 2
    with Store(tmp_path, write=False) as store:
        assert Counter(attempts(store).values())[2] == 2


def test_what_the_intact_model_cannot_be_measured_on_is_not_tried_on_the_others(tmp_path: Path) -> None:
    def broken(cell: Cell) -> Result:
        if cell.content.get("task") == "mood":
            raise ValueError("no labels")
        return computed(cell)

    _, watching = drive(tmp_path, Arithmetic(what=broken))
    assert watching.failures == ["evaluate mood on one (intact): no labels"]


def test_who_kills_workers_fails_alone(tmp_path: Path) -> None:
    deaths: Counter[str] = Counter()

    def deadly(cell: Cell) -> Result:
        if cell.kind == "scoring" and cell.content["scorer"] == "gbis" and cell.seed == 0:
            deaths["gbis"] += 1
            raise MemoryError
        return computed(cell)

    made, watching = drive(tmp_path, Arithmetic(what=deadly), repeats=2)
    assert watching.failures == ["score one by gbis (seed 0): its worker was ended by SIGKILL"]
    assert deaths["gbis"] == 3
    with Store(tmp_path, write=False) as store:
        records = store.records()
    assert records[made.scoring("one", "avss", 0).key].result


def killed_by_gbis(cell: Cell) -> Result:
    """End the process where a kill for memory would, without a trace."""
    if cell.kind == "scoring" and cell.content["scorer"] == "gbis":
        os._exit(9)
    return computed(cell)


@pytest.mark.slow
def test_a_cell_that_ends_the_process_three_times_fails_and_the_others_are_computed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from support.grids import Arithmetic, drive; "
        "from bench.test_scheduler import killed_by_gbis; "
        "drive(Path(sys.argv[1]), Arithmetic(what=killed_by_gbis), repeats=1)"
    )
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tests)])}
    codes = []
    while not codes or codes[-1]:
        command = [sys.executable, "-c", script, str(tmp_path / "out")]
        codes.append(subprocess.run(command, env=environment, check=False).returncode)
    assert codes == [9, 9, 9, 0]
    with Store(tmp_path / "out", write=False) as store:
        records = store.records()
        assert store.started() == {}
    made = layout(repeats=1)
    assert records[made.scoring("one", "gbis", 0).key].error == scheduler.ENDED
    assert records[made.scoring("one", "avss", 0).key].result
    executor = Arithmetic()
    drive(tmp_path / "out", executor, repeats=1, retry=True)
    assert made.scoring("one", "gbis", 0).key in {cell.key for cell in executor.cells}


def test_a_cell_that_was_started_before_is_tried_alone_and_three_starts_are_enough(tmp_path: Path) -> None:
    made = layout(repeats=1)
    avss, gbis = (made.scoring("one", scorer, 0) for scorer in ("avss", "gbis"))
    with Store(tmp_path) as store:
        for cells in ([avss, gbis], [gbis], [gbis]):
            store.begin(cells)
    executor = Arithmetic()
    _, watching = drive(tmp_path, executor, made)
    assert watching.failures == [f"{gbis}: {scheduler.ENDED}"]
    assert [each.cells for each in executor.assignments if avss in each.cells] == [(avss,)]
    assert gbis not in executor.cells


def test_an_interrupt_is_no_start_that_counts(tmp_path: Path) -> None:
    def interrupted(cell: Cell) -> Result:
        raise KeyboardInterrupt

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            drive(tmp_path, Arithmetic(what=interrupted), repeats=1)
    _, watching = drive(tmp_path, Arithmetic(), repeats=1)
    assert watching.failures == []


def test_a_ratio_that_is_too_much_spoils_no_other(tmp_path: Path) -> None:
    made, watching = drive(tmp_path, Arithmetic(), counts=[1, BLOCKS], ratios=[0.01], repeats=1)
    assert {failure.split(": ")[-1] for failure in watching.failures} == {
        f"removing {BLOCKS} of {BLOCKS} blocks leaves no model; at most {BLOCKS - 1} can go",
        f"of {BLOCKS} blocks none would be removed; ask for more",
    }
    assert good(made, tmp_path)


def good(made: Layout, directory: Path) -> bool:
    """Whether one block could be removed."""
    with Store(directory, write=False) as store:
        records = store.records()
    return records[made.planning("one", "avss", 0, "lowest", 1, BLOCKS).key].result is not None


def test_an_end_at_any_moment_loses_only_what_is_under_way(tmp_path: Path) -> None:
    rng, computations = random.Random(0), Counter[str]()

    def interrupted(cell: Cell) -> Result:
        if rng.random() < 0.15:
            raise KeyboardInterrupt
        computations[cell.key] += 1
        return computed(cell)

    ends = 0
    while True:
        executor = Arithmetic(what=interrupted)
        try:
            drive(tmp_path / "store", executor, counts=[1], ratios=[0.25, 0.5])
            break
        except KeyboardInterrupt:
            ends += 1
            assert executor.stopped
    assert ends > 3
    drive(tmp_path / "calm", Arithmetic(), counts=[1], ratios=[0.25, 0.5])
    with Store(tmp_path / "store", write=False) as ours, Store(tmp_path / "calm", write=False) as calm:
        results = {key: record.result for key, record in ours.records().items()}
        assert results == {key: record.result for key, record in calm.records().items()}
        assert set(attempts(ours).values()) == {1}
    assert computations.total() <= len(results) + 8 * ends


def test_the_tally_adds_up(tmp_path: Path) -> None:
    _, watching = drive(tmp_path, Arithmetic())
    assert all(tally.done + tally.failed + tally.running <= tally.known for tally in watching.tallies)
    last = watching.tallies[-1]
    assert (last.done, last.failed, last.running) == (last.known, 0, 0)


def test_the_scheduler_is_no_bottleneck(tmp_path: Path) -> None:
    """A thousand workers finish cells so fast that the scheduler must not search through all cells for each."""
    models = {str(number): str(number) for number in range(10)}
    looked = 0

    class Counted(Layout):
        def cells(self, known: Any, model: str) -> dict[str, Cell]:
            nonlocal looked
            cells = super().cells(known, model)
            looked += len(cells)
            return cells

    made = layout(models=models, counts=[1, 2, 3], repeats=5)
    counted = Counted.model_validate(made.model_dump())
    drive(tmp_path, Arithmetic(slots=50), counted)
    with Store(tmp_path, write=False) as store:
        total = len(store.records())
    # A cell is looked at again for each scoring and plan of its own model, and for none of the others.
    assert looked < 40 * total
