"""The first half of a command: its recipe is resolved, and checked as far as possible before weights are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from layerimp.blocks.memory import free_bytes
from layerimp.defaults import FAST, FIDELITY, SCORERS
from layerimp.errors import ModelError, OptionError, PluginError
from layerimp.evaluation.selection import compares, is_requested, without_comparers
from layerimp.evaluation.selection import prepared as prepare_evaluators
from layerimp.fidelity.comparer import Comparer
from layerimp.models.configuration import auto_class, configuration, count_parameters, stored_in
from layerimp.models.devices import device_named
from layerimp.models.dtypes import DTYPES
from layerimp.models.safetensors_files import read_headers
from layerimp.pipeline.healing import healers_of
from layerimp.pipeline.output import check_output, why_not_ours, why_not_shrunk
from layerimp.pipeline.resolve import (
    budget_of,
    check_ahead,
    check_own_text,
    check_plans,
    create_pruner,
    defaults_note,
    resolve,
)
from layerimp.pipeline.texts import check_calibration
from layerimp.pipeline.trial import trial
from layerimp.progress import SILENT, Progress
from layerimp.recipe import Recipe, check_kind
from layerimp.recipe.components import COMPARED_BRIEFLY
from layerimp.registry.attribution import attributing
from layerimp.scoring.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PretrainedConfig

    from layerimp.evaluator import Evaluator
    from layerimp.healer import Healer
    from layerimp.pipeline.stages import Loaded
    from layerimp.pruner import PrunePlan, Pruner
    from layerimp.recipe import Permissions

Command = Literal["run", "score", "prune", "evaluate", "shrink"]
OFFLOADED = "the model is read block by block"
"""Why a model is neither healed nor compared."""


@dataclass(frozen=True)
class Prepared:
    """A command that can be carried out, as far as this is known before weights are read.

    Attributes:
        command: The command.
        recipe: The recipe, with the text and the tasks that are used by default.
        reads: Which of `calibration`, `tasks` and `amount` the command reads.
        plans: Plans to carry out; None if scorers choose, or the recipe names the blocks.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        selection: The scorers.
        pruner: The pruner.
        evaluators: The evaluators, by label; empty if nothing is evaluated.
        lenient: Whether tasks that do not fit the model are left out, because they are only defaults.
        healers: The healers, by label; empty if nothing is healed.
        trained_on: The evaluator of the task whose training split is the text; None for other texts.
        offloaded: Whether the blocks of the model stay in their files until they are needed.
    """

    command: Command
    recipe: Recipe
    reads: frozenset[str]
    plans: Mapping[str, PrunePlan] | None
    permissions: Permissions
    progress: Progress
    selection: Selection
    pruner: Pruner
    evaluators: Mapping[str, Evaluator]
    lenient: bool
    healers: Mapping[str, Healer]
    trained_on: Evaluator | None
    offloaded: bool

    @property
    def scores(self) -> bool:
        """Whether blocks are scored to choose what goes."""
        return self.reads_text and not self.recipe.names_all

    @property
    def reads_text(self) -> bool:
        """Whether text is drawn, for scorers, for healers and to compare models."""
        return "calibration" in self.reads


def prepare(
    command: Command,
    given: Recipe,
    permissions: Permissions,
    progress: Progress,
    plans: Mapping[str, PrunePlan] | None = None,
    loaded: Loaded | None = None,
) -> Prepared:
    """Prepare a command. Nothing is loaded, scored or written.

    Args:
        command: The command.
        given: The command's recipe; of its choice and amount nothing is read if there are plans.
        permissions: Which code that came with data may run.
        progress: Where to report progress, and the defaults that are used.
        plans: Plans to carry out, for `prune`.
        loaded: The model, if it is loaded already; the recipe gives only its name then.

    Raises:
        InputError: something in the recipe is wrong, as far as this can be seen without the weights.
    """
    check_kind(given, Recipe)
    if plans is not None:
        given = given.for_plans
    reads = _reads(command, given, plans)
    recipe = resolve(given)
    if command == "run" and "evaluators" not in given.model_fields_set:
        recipe = recipe.model_copy(update={"evaluators": {**recipe.evaluators, FIDELITY: COMPARED_BRIEFLY}})
    _refuse(command, recipe)
    if command in ("run", "prune") and "calibration" in reads and given.healers:
        check_own_text(given, config_of(given, permissions, loaded))
    if by_default := defaults_note(given, recipe, reads, names_method=command != "shrink"):
        progress.note(by_default)
    on_blocks = partial(check_ahead, recipe.model, permissions) if loaded is None else partial(_checked, loaded)
    if command in ("run", "prune", "shrink"):
        on_blocks(partial(budget_of, recipe) if plans is None else partial(check_plans, plans))
    if "calibration" in reads and recipe.is_recommended:
        recipe = _within_reach(recipe, permissions, progress, loaded)
    healers = healers_of(recipe.healers, recipe.heal_text)
    pruner, selection = create_pruner(recipe.pruner), Selection.of(recipe, progress)
    if {"calibration", "amount"} <= reads:

        def fits(num_blocks: int) -> None:
            with suppress(PluginError), attributing("pruner", pruner.name, type(pruner)):  # reported when it plans
                trial(pruner, budget_of(recipe, num_blocks))

        on_blocks(fits)
    if command == "score" or "calibration" not in reads:
        if command == "prune" and healers and "healers" in given.model_fields_set:
            progress.note("nothing is healed where a plan or named blocks say what goes: layerimp heal repairs it")
        recipe, healers = recipe.model_copy(update={"healers": {}, "heal_text": None}), {}
    check_output(recipe, why_not_shrunk if command == "shrink" else why_not_ours)
    trained_on = check_calibration(recipe, permissions, progress) if "calibration" in reads else None
    evaluators = prepare_evaluators(recipe, permissions, progress) if "tasks" in reads else {}
    if command == "evaluate":
        evaluators = without_comparers(recipe, evaluators, "layerimp evaluate measures one model", SILENT)
    if command == "run" and compares(recipe, evaluators) and not recipe.names_all:  # they would remove the same
        selection.add_baselines(recipe)
    offloaded = loaded is None and _offloaded(command, recipe, evaluators, healers, permissions, progress)
    if offloaded:
        evaluators = without_comparers(recipe, evaluators, OFFLOADED, progress)
    return Prepared(
        command=command,
        recipe=recipe,
        reads=reads,
        plans=plans,
        permissions=permissions,
        progress=progress,
        selection=selection,
        pruner=pruner,
        evaluators=evaluators,
        lenient=given.tasks is None,
        healers=healers,
        trained_on=trained_on,
        offloaded=offloaded,
    )


def _checked(loaded: Loaded, check: Callable[[int], object]) -> None:
    """Run a check on the number of blocks of a loaded model."""
    check(len(loaded.stack))


def _reads(command: Command, recipe: Recipe, plans: Mapping[str, PrunePlan] | None) -> frozenset[str]:
    """Return which of `calibration`, `tasks` and `amount` a command reads."""
    if command == "prune" and (plans is not None or recipe.names_all):
        return frozenset()
    reads = {
        "run": ("calibration", "tasks", "amount"),
        "shrink": ("calibration", "tasks", "amount"),
        "score": ("calibration",),
        "prune": ("calibration", "amount"),
        "evaluate": ("tasks",),
    }
    return frozenset(reads[command])


def _refuse(command: Command, recipe: Recipe) -> None:
    """Refuse what a command cannot do."""
    if command == "prune" and recipe.output is None:
        raise OptionError("prune writes a checkpoint: name a directory with --output")
    if command == "prune" and recipe.keep is not None:
        raise OptionError("prune measures nothing that could be kept: give a ratio or a count, or use layerimp run")
    if command == "evaluate" and recipe.offload:
        raise OptionError("layerimp evaluate measures a whole model in memory; leave out offload")


def _within_reach(recipe: Recipe, permissions: Permissions, progress: Progress, loaded: Loaded | None) -> Recipe:
    """Return a recipe with a method in place of the recommended one, if that cannot work on the model."""
    if not (obstacle := obstacle_to_healing(recipe, permissions, loaded)):
        return recipe
    scored = f"scored by {SCORERS[FAST]} alone, in place of the recommended method"
    progress.note(f"{'not healed' if recipe.names_all else scored}, since {obstacle}")
    return recipe.in_one_pass


def obstacle_to_healing(recipe: Recipe, permissions: Permissions, loaded: Loaded | None = None) -> str:
    """Tell why the recommended method cannot work on a model; empty if it can, as far as this is known ahead."""
    if loaded is None and (
        recipe.offload or (recipe.offload is None and recipe.device_map is None and _lacking(recipe, permissions))
    ):
        return OFFLOADED
    config = config_of(recipe, permissions, loaded)
    if auto_class(config) in ("AutoModel", "AutoModelForMaskedLM"):
        return "the model predicts neither the next token nor a label"
    return ""


def config_of(recipe: Recipe, permissions: Permissions, loaded: Loaded | None = None) -> PretrainedConfig:
    """Return the configuration of a recipe's model, which may be loaded already."""
    if loaded is not None:
        return loaded.model.config
    return configuration(recipe.model, trust_remote_code=permissions.trust_remote_code)


def _offloaded(
    command: Command,
    recipe: Recipe,
    evaluators: Mapping[str, Evaluator],
    healers: Mapping[str, Healer],
    permissions: Permissions,
    progress: Progress,
) -> bool:
    """Whether the blocks of the model stay in their files. An evaluator that compares by default prevents nothing."""
    if command == "evaluate":
        return False
    whole = [
        f"the evaluator {label}"
        for label, evaluator in evaluators.items()
        if evaluator.needs_weights and (is_requested(recipe, label) or not isinstance(evaluator, Comparer))
    ]
    whole += ["--heal"] * bool(healers) + ["--keep"] * (recipe.keep is not None)
    return is_offloaded(recipe, permissions, progress, whole)


def is_offloaded(recipe: Recipe, permissions: Permissions, progress: Progress, whole: Sequence[str] = ()) -> bool:
    """Whether the blocks of a recipe's model stay in their files, and scoring reads them one after another.

    By default this is so if the model does not fit into the free memory of the device; then a line says so.

    Args:
        recipe: The recipe.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        whole: What needs the whole model in memory, in words.

    Raises:
        OptionError: the recipe asks for reading block by block, and for something that contradicts it.
        ModelError: the recipe, or what it asks for, needs the whole model, which does not fit into memory; or the
            configuration cannot be read.
    """
    needing = [
        f"{name} needs whole models in memory; an offloaded run takes --tasks none and no healer" for name in whole
    ]
    if recipe.offload:
        if needing:
            raise OptionError(needing[0])
        if recipe.device_map is not None:
            raise OptionError("--offload reads a model block by block, and contradicts --device-map")
        return True
    if recipe.device_map is not None or not (sizes := _lacking(recipe, permissions)):
        return False
    if needing or recipe.offload is False:
        why, *_ = (*needing, "--offload reads them block by block")
        raise ModelError(f"the weights of {recipe.model} take {sizes}; {why}")
    progress.note(f"{recipe.model} is read block by block, since its weights take {sizes} (an error with --no-offload)")
    return True


def _lacking(recipe: Recipe, permissions: Permissions) -> str:
    """Describe the needed and the free memory if a model's weights do not fit; empty if they fit, or if not known."""
    needed, free = _needed(recipe, permissions), free_bytes(device_named(recipe.device))
    return f"{needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free" if needed > free else ""


def _needed(recipe: Recipe, permissions: Permissions) -> int:
    """Return the bytes of a model's weights, without reading them; 0 if they are not known."""
    named = DTYPES.get(recipe.dtype or "")
    if headers := read_headers(recipe.model):
        return headers.bytes if named is None else sum(headers.numbers.values()) * named.itemsize
    # A model on the hub, whose files need not be here yet.
    trusted = permissions.trust_remote_code
    config = configuration(recipe.model, trust_remote_code=trusted)
    dtype = named or stored_in(recipe.model, config) or DTYPES["float32"]
    return (count_parameters(config, trust_remote_code=trusted) or 0) * dtype.itemsize
