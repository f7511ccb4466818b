"""What an interrupted `shrink` has finished is used again for the same question alone."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.recipes import make_recipe
from support.tiny import tiny

from layerimp.cache.directory import entries
from layerimp.cache.unfinished import Unfinished
from layerimp.errors import OptionError
from layerimp.models.discovery import find_blocks
from layerimp.pipeline import run
from layerimp.pipeline.held_out import HeldOut, HeldOutAgreement
from layerimp.pipeline.pruning import Choice
from layerimp.pipeline.shrink import _chosen, prepare_shrink
from layerimp.pipeline.shrink_state import State, _keep
from layerimp.pipeline.stages import Loaded
from layerimp.progress import SILENT
from layerimp.recipe import Permissions
from layerimp.surgery.removal import prepare
from layerimp.testing import tiny_tokenizer

Begin = Callable[..., State]
"""Makes the state of a run with these fields in its recipe."""
GONE = [1]


@pytest.fixture
def begin(calibration_file: Path) -> Iterator[Begin]:
    model = tiny("llama")
    loaded = Loaded(model, tiny_tokenizer(), find_blocks(model))
    text = {"source": str(calibration_file), "samples": 16, "max_length": 16}
    own = {"calibration": text, "tasks": [], "scorers": ["avss"], "pruner": "lowest", "healers": ["linear"]}
    with Unfinished() as unfinished:

        def state(**fields: Any) -> State:
            recipe = make_recipe({"model": "tiny", **own, **fields})
            prepared = prepare_shrink(recipe, Permissions(), SILENT, loaded)
            return State(run.Run.of(prepared, None, unfinished, loaded))

        yield state


def is_known(state: State) -> bool:
    """Whether the choice is known; if not, it is made."""
    made: list[Choice] = []

    def choose() -> Choice:
        made.append(Choice({}))
        return made[-1]

    state.choice(choose)
    return not made


def edit(module: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a module stand in an edited file."""
    source = Path(str(sys.modules[module].__file__)).read_text()
    edited = place / f"{module}.py"
    edited.write_text(source + "# edited\n")
    monkeypatch.setattr(sys.modules[module], "__file__", str(edited))


def test_the_footprint_is_measured_in_one_way(begin: Begin) -> None:
    footprint = {"footprint": {"name": "footprint", "options": {"seq_length": 8}}}
    with pytest.raises(OptionError, match="in its own way: leave out 'footprint' and its options"):
        begin(count=1, evaluators=footprint)


def test_the_rows_of_the_tasks_matter_where_their_quality_is_kept(begin: Begin, task: Path) -> None:
    tasks = {"tasks": [str(task)], "evaluators": ["harness"]}
    keeping: list[dict[str, Any]] = [{"keep": 0.9}, {"keep": 0.9, "keep_of": "agreement"}, {"count": 1}]
    assert not any(is_known(begin(**tasks, **amount)) for amount in keeping)
    assert all(is_known(begin(**tasks, **amount)) for amount in keeping)
    documents = task.with_name("docs.jsonl")
    documents.write_text(documents.read_text().replace("cat", "dog"))
    assert [is_known(begin(**tasks, **amount)) for amount in keeping] == [False, True, True]


def test_the_held_out_text_matters(begin: Begin) -> None:
    """An edit of these rows alone changes nothing in the text that is scored on."""
    begun = begin(keep=0.9, keep_of="agreement").run

    def measured_on(row: tuple[int, ...]) -> State:
        held = replace(begun.text, rows=(row, row))
        return State(replace(begun, evaluators={HeldOut.name: HeldOutAgreement(begun.loaded.stack, held)}))

    assert not is_known(measured_on((5, 6, 7)))
    assert is_known(measured_on((5, 6, 7)))
    assert not is_known(measured_on((5, 6, 8)))


@pytest.mark.parametrize("module", ["layerimp_avss", "layerimp_lowest"])
def test_a_choice_is_made_anew_by_other_code(
    begin: Begin, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_known(begin(count=1))
    assert is_known(begin(count=1))
    edit(module, tmp_path, monkeypatch)
    assert not is_known(begin(count=1))


def test_the_search_for_a_quality_heals_but_does_not_train(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    heal, healers = run.heal_beside, list[str]()
    monkeypatch.setattr(run, "heal_beside", lambda *a, **o: (healers.append(a[4].name), heal(*a, **o))[1])
    monkeypatch.setattr("layerimp.pipeline.keeping._Trials.keeps", lambda *_: True)
    fields: dict[str, Any] = {"keep": 0.5, "keep_of": "agreement"}
    state = begin(healers=["linear", "distill"], **fields)
    choice = state.choice(lambda: _chosen(state.run))[0]
    assert choice.search is not None
    assert choice.search.removable.keys() == {"avss", "avss+linear"}
    assert set(healers) == {"linear"}
    assert is_known(begin(healers=["linear"], **fields))
    assert not is_known(begin(healers=[], **fields))


def test_a_stage_is_repeated_by_other_code(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heal, healings = run.heal_beside, list[Any]()
    monkeypatch.setattr(run, "heal_beside", lambda *a, **o: (healings.append(a), heal(*a, **o))[1])

    def stages() -> int:
        state = begin(count=1)
        removal = prepare(state.run.loaded.stack, GONE)
        state.healed(removal, removal.beside())
        return len(healings)

    assert (stages(), stages()) == (1, 1)
    edit("layerimp_closedform", tmp_path, monkeypatch)
    assert stages() == 2


def test_the_state_of_a_training_goes_once_the_stage_is_kept(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is several times as large as the stage."""
    monkeypatch.setattr("layerimp_distill.training.RARELY", 0.0)
    states = list[set[str]]()

    def keep(*given: Any) -> bool:
        states.append({file.name for entry in entries("unfinished") for file in entry.path.iterdir()})
        return _keep(*given)

    monkeypatch.setattr("layerimp.pipeline.shrink_state._keep", keep)
    training = {"name": "distill", "options": {"first": None, "steps": 2, "checks": 1}}
    state = begin(count=1, healers={"distill": training})
    removal = prepare(state.run.loaded.stack, GONE)
    state.healed(removal, removal.beside())
    assert "training.pt" in states[0]
    (kept,) = entries("unfinished")
    assert {"stage.json", "values.pt"} <= {path.name for path in kept.path.iterdir()}


@pytest.mark.parametrize("failing", ["torch.save", "write_whole"])
def test_a_full_disk_leaves_nothing_of_a_stage(begin: Begin, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a half of the values nor whole ones without their description take the room of the checkpoint."""

    def full(_given: Any, place: Any) -> None:
        if failing == "torch.save":
            place.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    state = begin(count=1)
    removal = prepare(state.run.loaded.stack, GONE)
    monkeypatch.setattr(f"layerimp.pipeline.shrink_state.{failing}", full)
    (stage,) = state.healed(removal, removal.beside())
    assert stage.healing is not None
    (kept,) = entries("unfinished")
    assert sorted(path.name for path in kept.path.iterdir()) == ["about.txt", "lock"]


def test_a_stage_whose_values_cannot_be_read_is_repeated(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power failure there may be nothing in a file but its name."""
    removal = prepare(begin(count=1).run.loaded.stack, GONE)
    (before,) = begin(count=1).healed(removal, removal.beside())
    (kept,) = entries("unfinished")
    values = kept.path / "values.pt"
    size = values.stat().st_size
    values.write_bytes(b"")
    (again,) = begin(count=1).healed(removal, removal.beside())
    assert again.healing == before.healing
    assert values.stat().st_size == size
