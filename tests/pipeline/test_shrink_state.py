"""What an interrupted `shrink` has finished is used again for the same question alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.recipes import make_recipe
from support.tiny import tiny

from layerimp.cache.unfinished import Unfinished
from layerimp.models.discovery import find_blocks
from layerimp.pipeline import run
from layerimp.pipeline.pruning import Choice
from layerimp.pipeline.shrink import prepare_shrink
from layerimp.pipeline.shrink_state import State
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


@pytest.mark.parametrize("module", ["layerimp_avss", "layerimp_lowest"])
def test_a_choice_is_made_anew_by_other_code(
    begin: Begin, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_known(begin(count=1))
    assert is_known(begin(count=1))
    edit(module, tmp_path, monkeypatch)
    assert not is_known(begin(count=1))


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
