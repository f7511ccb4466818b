"""What an interrupted `layerimp shrink` has finished: the choice of what goes, and each stage of healing."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from layerimp._paths import whole, write_whole
from layerimp.errors import LayerimpError, ModelError, NonFiniteError, PluginError, one_line
from layerimp.healing import parameters
from layerimp.models.fingerprint import model_fingerprint
from layerimp.pipeline.healing import repaired
from layerimp.pipeline.keeping import searched
from layerimp.pipeline.pruning import Choice
from layerimp.pipeline.shrink_recipe import repairing
from layerimp.registry.attribution import attributing
from layerimp.registry.source_code import code_of
from layerimp.report.results.shrunk import HealingStage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from layerimp.evaluator import Evaluator
    from layerimp.pipeline.run import Run
    from layerimp.surgery.removal import Removal

_VALUES, _DONE = "values.pt", "stage.json"


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
        run, text = self.run, self.run.text
        fields = {"scorers", "pruner", "ratio", "count", "keep", "keep_of", "targets", "blocks", "protect"}
        return {
            "model": model_fingerprint(run.loaded.model, run.loaded.tokenizer),
            "recipe": run.recipe.model_dump(mode="json", include={*fields, "seed", "batch_size"}),
            "text": [list(row) for row in text.rows],
            "content": text.fingerprint,
            "labels": list(text.labels),
            "scorers": self._code_of_scorers(),
            "pruner": code_of(run.pruner),
            "evaluators": self._measured_by(),
            "healer": self._healed_by(),
        }

    def _code_of_scorers(self) -> dict[str, str]:
        """Return the code of each scorer, by label; one that cannot be made chooses nothing."""
        selection, num_blocks, code = self.run.selection, len(self.run.loaded.stack), dict[str, str]()
        for label in selection.specs:
            with suppress(LayerimpError):
                code[label] = code_of(selection.create(num_blocks, label)[label])
        return code

    def _measured_by(self) -> dict[str, list[Any]]:
        """Return what determines the measurements that the choice depends on, by the evaluator's label.

        An evaluator that fails here measures nothing.
        """
        recipe = self.run.recipe
        evaluators: dict[str, Evaluator] = {}
        if recipe.keep is not None:
            evaluators, _ = searched(self.run)
        determined: dict[str, list[Any]] = {}
        for label, evaluator in evaluators.items():
            with suppress(LayerimpError), attributing("evaluator", label, type(evaluator)):
                options = evaluator.config.model_dump(mode="json")
                determined[label] = [evaluator.name, evaluator.fingerprint() or [code_of(evaluator), options]]
        return determined

    def _healed_by(self) -> list[Any]:
        """Return what determines the healing in the search for a quality; empty if there is none."""
        run, labels = self.run, repairing(self.run.recipe) if self.run.recipe.keep is not None else []
        judging = run.judging.fingerprint if run.judging else None
        return [
            [run.recipe.healers[label].model_dump(mode="json"), code_of(run.healers[label]), judging]
            for label in labels
        ]

    def _directory(self, what: str, **more: Any) -> Path | None:
        if self.run.unfinished is None or self.run.loaded.stack.offloaded:  # an offloaded model has no fingerprint
            return None
        about = f"{what} of shrinking {type(self.run.loaded.model).__name__}"
        return self.run.unfinished.directory({"shrink": what, **self._given, **more}, about)

    def choice(self, choose: Callable[[], Choice]) -> tuple[Choice, float]:
        """Return the choice of an earlier run of the same command, or make it; and how many seconds it took."""
        directory = self._directory("the choice")
        path = None if directory is None else directory / "choice.pickle"
        if path is not None and path.exists():
            with suppress(Exception):  # of another version, or not whole: it is made again
                choice, seconds = pickle.loads(path.read_bytes())
                if isinstance(choice, Choice):
                    self.run.progress.note("what goes is known from an interrupted run")
                    return choice, seconds
        start = time.monotonic()
        choice = choose()
        seconds = time.monotonic() - start
        if path is not None:
            with suppress(OSError), whole(path) as new:
                new.write_bytes(pickle.dumps((choice, seconds)))
        return choice, seconds

    def healed(self, removal: Removal, pruned: PreTrainedModel) -> list[HealingStage]:
        """Let the healers of the run heal a pruned model one after the other, each going on from the one before.

        A stage that an interrupted run has finished is not repeated. A stage that fails leaves the model as it was.

        Args:
            removal: What was removed.
            pruned: The pruned model beside the intact one, which gets new parameters.
        """
        stages: list[HealingStage] = []
        for number, label in enumerate(self.run.healers, 1):
            specs = list(self.run.recipe.healers.values())[:number]
            made = {
                "removed": list(removal.removed),
                "healers": [spec.model_dump(mode="json") for spec in specs],
                "code": [code_of(healer) for healer in list(self.run.healers.values())[:number]],
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

    def _stage(self, label: str, removal: Removal, pruned: PreTrainedModel, directory: Path | None) -> HealingStage:
        """Let a healer heal the model, and keep the result."""
        run, unfinished, began = self.run, self.run.unfinished, time.monotonic()
        held = unfinished.held if unfinished else frozenset()
        healing, kept = None, False
        changed: tuple[str, ...] = ()
        try:
            healed = run.heal(label, removal, pruned)
        except (ModelError, PluginError, NonFiniteError, torch.OutOfMemoryError) as error:
            why = str(error) if isinstance(error, LayerimpError) else one_line(error)
            run.progress.note(f"{label} is left out: {why}")
        else:
            healing, changed = repaired(healed, run.further), tuple(healed.changed)
            kept = any(gap.done != "nothing" for gap in healing.gaps)
            why = "; ".join(dict.fromkeys(gap.why for gap in healing.gaps if gap.why))
        stage = HealingStage(
            label=label,
            healer=run.recipe.healers[label].name,
            kept=kept,
            why=why,
            healing=healing,
            minutes=(time.monotonic() - began) / 60,
        )
        if directory and unfinished and healing is not None:
            values = {path: pruned.get_parameter(path).detach() for path in changed}
            if _keep(directory, stage, values):  # the healer's own state is no longer needed
                unfinished.remove(unfinished.held - held)
        return stage


def _keep(directory: Path, stage: HealingStage, values: Mapping[str, torch.Tensor]) -> bool:
    """Write a finished stage, and return whether that succeeded.

    Its description comes last, and says that the values are whole.
    """
    try:
        with whole(directory / _VALUES) as new:
            torch.save(dict(values), new)
        write_whole(directory / _DONE, stage.model_dump_json())
    except (OSError, RuntimeError):  # the stage is repeated after an interruption
        (directory / _VALUES).unlink(missing_ok=True)
        return False
    return True


def _read(directory: Path, pruned: PreTrainedModel) -> HealingStage | None:
    """Return a finished stage, and give the model its values; None if there is none."""
    if not (directory / _DONE).exists():
        return None
    try:
        stage = HealingStage.model_validate_json((directory / _DONE).read_bytes())
        values = torch.load(directory / _VALUES, map_location=pruned.device, weights_only=True)
        for path, value in values.items():
            parameters.replace(pruned, path, value)
        return stage
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError, LayerimpError):
        return None  # the stage is repeated
