"""What an interrupted `layerimp shrink` has finished: the choice of what goes, and each stage of healing."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerimp.errors import LayerimpError, ModelError, NonFiniteError, PluginError
from layerimp.healing.engine import heal_beside
from layerimp.healing.parameters import replace
from layerimp.models.discovery import find_blocks
from layerimp.models.fingerprint import model_fingerprint
from layerimp.pipeline.healing import repaired
from layerimp.report.results.models import Repaired

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.pipeline.run import Run
    from layerimp.pruner import PrunePlan
    from layerimp.report.results.search import QualitySearch
    from layerimp.scorer import Importance
    from layerimp.sizes.targets import Reached
    from layerimp.surgery.removal import Removal

_VALUES, _DONE, _SECONDS = "values.pt", "stage.json", "seconds"


@dataclass(frozen=True)
class Chosen:
    """What goes, and why.

    Attributes:
        label: The label of the scorer, or of the plan that the user named.
        plan: The plan.
        importance: The scores that led to it, by the scorer's label.
        reached: The values that it reaches beside the targets.
        search: The search for it, if a quality was to be kept.
        seconds: How long the choice took.
    """

    label: str
    plan: PrunePlan
    importance: Mapping[str, Importance] = field(default_factory=dict)
    reached: Sequence[Reached] = ()
    search: QualitySearch | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Stage:
    """A stage of healing.

    Attributes:
        label: The label of the healer.
        healer: Its name.
        healing: What it did; None if it failed.
        why: Why it failed; else empty.
        seconds: How long it took.
    """

    label: str
    healer: str
    healing: Repaired | None
    why: str
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether the stage changed the model: not if it failed, or brought the model no nearer to the intact one."""
        return self.healing is not None and any(gap.done != "nothing" for gap in self.healing.gaps)


@dataclass(frozen=True)
class State:
    """Keeps what is finished in the cache, under everything that determines it, so that the same command finds it.

    Attributes:
        run: The run.
    """

    run: Run

    @cached_property
    def _given(self) -> dict[str, Any]:
        """Everything that determines the choice."""
        fields = {"scorers", "pruner", "cuts", "ratio", "count", "keep", "keep_of", "targets", "blocks", "protect"}
        if self.run.recipe.keep is not None:
            fields |= {"evaluators", "tasks", "limit", "limits", "num_fewshot"}
        return {
            "model": model_fingerprint(self.run.loaded.model, None),
            "recipe": self.run.recipe.model_dump(mode="json", include={*fields, "seed", "batch_size"}),
            "text": [list(row) for row in self.run.text.rows],
            "content": self.run.text.fingerprint,
            "labels": list(self.run.text.labels),
        }

    def _directory(self, what: str, **more: Any) -> Path | None:
        if self.run.unfinished is None or self.run.loaded.stack.offloaded:  # an offloaded model has no fingerprint
            return None
        about = f"{what} of shrinking {type(self.run.loaded.model).__name__}"
        return self.run.unfinished.directory({"shrink": what, **self._given, **more}, about)

    def choice(self, choose: Callable[[], Chosen]) -> Chosen:
        """Return the choice of an earlier run of the same command, or make it."""
        directory = self._directory("the choice")
        path = None if directory is None else directory / "choice.pickle"
        if path is not None and path.exists():
            with suppress(Exception):  # of another version, or not whole: it is made again
                known = pickle.loads(path.read_bytes())
                if isinstance(known, Chosen):
                    self.run.progress.note("what goes is known from an interrupted run")
                    return known
        chosen = choose()
        if path is not None:
            with suppress(OSError):
                _write(path, lambda place: place.write_bytes(pickle.dumps(chosen)))
        return chosen

    def healed(self, removal: Removal, pruned: PreTrainedModel) -> list[Stage]:
        """Let the healers of the run heal a pruned model one after the other, each going on from the one before.

        A stage that an interrupted run has finished is not repeated. A stage that fails leaves the model as it was.

        Args:
            removal: What was removed.
            pruned: The pruned model beside the intact one, which gets new parameters.
        """
        stages: list[Stage] = []
        for number, label in enumerate(self.run.healers, 1):
            specs = list(self.run.recipe.healers.values())[:number]
            made = {
                "removed": list(map(str, removal.steps)),
                "healers": [spec.model_dump(mode="json") for spec in specs],
                "judging": self.run.judging.fingerprint if self.run.judging else None,
                "further": self.run.further.fingerprint if self.run.further else None,
            }
            directory = self._directory(f"{label} in stage {number}", **made)
            stage = None if directory is None else _read(directory, pruned)
            if stage is None:
                stage = self._stage(label, removal, pruned, directory)
            else:
                self.run.progress.note(f"{label} is known from an interrupted run")
            stages.append(stage)
        return stages

    def _stage(self, label: str, removal: Removal, pruned: PreTrainedModel, directory: Path | None) -> Stage:
        """Let a healer heal the model, and keep the result."""
        run, spent = self.run, _Spent(directory)
        healing, why = None, ""
        changed: tuple[str, ...] = ()
        try:
            healed = heal_beside(
                *(run.loaded.stack, find_blocks(pruned), removal.steps, run.text, run.healers[label]),
                further=run.further or (),
                judging=run.judging or (),
                unfinished=run.unfinished,
                progress=run.progress,
            )
        except (ModelError, PluginError, NonFiniteError) as error:
            why = str(error)
            run.progress.note(f"{label} is left out: {error}")
        except KeyboardInterrupt:
            spent.keep()
            raise
        else:
            healing, changed = repaired(healed), tuple(healed.changed)
        stage = Stage(label, run.recipe.healers[label].name, healing, why, spent.seconds)
        if directory is not None and healing is not None:
            _keep(directory, stage, {path: pruned.get_parameter(path).detach() for path in changed})
        return stage


class _Spent:
    """The time that a stage has taken, over all runs of the command.

    Args:
        directory: Where the time of interrupted runs is kept; None for nowhere.
    """

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / _SECONDS
        self._start, self._before = time.monotonic(), 0.0
        if self._path is not None and self._path.exists():
            with suppress(OSError, ValueError):
                self._before = float(self._path.read_text(encoding="utf-8"))

    @property
    def seconds(self) -> float:
        """The time so far."""
        return self._before + time.monotonic() - self._start

    def keep(self) -> None:
        """Keep the time for the next run."""
        if self._path is not None:
            with suppress(OSError):
                _write(self._path, lambda place: place.write_text(str(self.seconds), encoding="utf-8"))


def _keep(directory: Path, stage: Stage, values: Mapping[str, torch.Tensor]) -> None:
    """Write a finished stage; its description comes last, and says that the values are whole."""
    document = {**vars(stage), "healing": stage.healing and stage.healing.model_dump(mode="json")}
    with suppress(OSError, RuntimeError):  # without room the stage is repeated after an interruption
        _write(directory / _VALUES, lambda place: torch.save(dict(values), place))
        _write(directory / _DONE, lambda place: place.write_text(json.dumps(document), encoding="utf-8"))


def _read(directory: Path, pruned: PreTrainedModel) -> Stage | None:
    """Return a finished stage, and give the model its values; None if there is none."""
    if not (directory / _DONE).exists():
        return None
    try:
        document = json.loads((directory / _DONE).read_text(encoding="utf-8"))
        values = torch.load(directory / _VALUES, map_location=pruned.device, weights_only=True)
        for path, value in values.items():
            replace(pruned, path, value)
        return Stage(**{**document, "healing": document["healing"] and Repaired.model_validate(document["healing"])})
    except (OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError, LayerimpError):
        return None


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is whole or does not exist, even if the process is killed."""
    new = path.with_name(f"{path.name}.new")
    write(new)
    os.replace(new, path)
