"""Resolves a grid before any long work: its components and models, digests of files, and the tasks' fingerprints."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp._paths import expanded
from layerimp.bench.cell_graph import Chooser, Entrant, Layout, Measure, Mender, Subject
from layerimp.bench.cells import digest
from layerimp.blocks.modes import quiet
from layerimp.calibration.documents import check_source, task_of
from layerimp.defaults import ALL
from layerimp.errors import LayerimpError, ModelError, OptionError
from layerimp.evaluation.selection import SHARED, for_training, prepared, prepared_for, reads_tasks
from layerimp.evaluator import Evaluator
from layerimp.models.dtypes import dtype_named, name_of
from layerimp.models.loading import configuration, float32_stands_in, stored_in
from layerimp.pipeline.healing import healers_of
from layerimp.pipeline.resolve import anywhere, create_pruner
from layerimp.pipeline.resolve import resolve as resolve_recipe
from layerimp.recipe import ComponentSpec, Permissions, Recipe
from layerimp.registry.assets import located
from layerimp.registry.attribution import attributing, create
from layerimp.registry.catalog import registry
from layerimp.scorer import Scorer
from layerimp.scoring.selection import check_spec, installed, is_blind

if TYPE_CHECKING:
    import torch

    from layerimp.bench.grid import Grid
    from layerimp.bench.store import Store
    from layerimp.component import Component
    from layerimp.progress import Progress
    from layerimp.steps import Cuts


def resolve(
    grid: Grid,
    store: Store,
    permissions: Permissions,
    progress: Progress,
    device: torch.device,
    copies: int = 1,
) -> Layout:
    """Find everything that determines the cells of a grid.

    Args:
        grid: The grid.
        store: Where digests of files are kept.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
        device: The device that models compute on. The dtype is decided here, once for all workers.
        copies: How many workers hold a model in the memory of that device.

    Raises:
        InputError: something that the grid names does not exist, or does not fit the rest of the grid.
    """
    scorers = _entrants(grid, progress)
    pruners = {label: _chooser(spec, grid.cuts) for label, spec in grid.pruners.items()}
    made = healers_of(grid.healers, grid.heal_text)
    healers = {label: Mender(spec=grid.healers[label], code=_code_of(healer)) for label, healer in made.items()}
    models = {}
    for label in grid.models:
        resolved = anywhere(resolve_recipe(grid.recipe(label)))
        recipe, dtype = _with_dtype(resolved, permissions, progress, device, copies)
        measures = tuple(_measures(recipe, permissions, progress))
        if not measures:
            raise OptionError(
                f"nothing to evaluate {label!r} on: name tasks (--tasks), or an evaluator that needs none"
            )
        with progress.stage(f"read the files of {label}"):
            identity = digest([_model_digest(recipe.model, store), dtype])
            text = _calibration_digest(recipe, permissions, progress, store)
            more = recipe.heal_text
            further = None if more is None else _text_digest(more, recipe, permissions, progress, store)
        models[label] = Subject(recipe=recipe, identity=identity, text=text, heal_text=further, measures=measures)
    return Layout(grid=grid, models=models, scorers=scorers, pruners=pruners, healers=healers)


def _with_dtype(
    recipe: Recipe, permissions: Permissions, progress: Progress, device: torch.device, copies: int
) -> tuple[Recipe, str | None]:
    """Return the recipe with the dtype that all workers compute in, and the dtype's name for the keys of cells.

    The name is None if no dtype is asked for and the model computes in its stored dtype.
    """
    dtype_named(recipe.dtype)
    if recipe.dtype is not None:
        return recipe, recipe.dtype
    trusted = permissions.trust_remote_code
    config = configuration(recipe.model, trust_remote_code=trusted)
    if float32_stands_in(recipe.model, config, device, progress, copies=copies, trust_remote_code=trusted):
        return recipe.model_copy(update={"dtype": "float32"}), "float32"
    stored = stored_in(located("models", recipe.model), config)
    return recipe.model_copy(update={"dtype": stored and name_of(stored)}), None


def _entrants(grid: Grid, progress: Progress) -> dict[str, Entrant]:
    specs = {label: spec for label, spec in grid.scorers.items() if label != ALL}
    invited = {name: ComponentSpec(name=name) for name in installed(progress)} if ALL in grid.scorers else {}
    specs |= {label: spec for label, spec in (invited | grid.baselines).items() if label not in specs}
    refused = {label: reason for label, spec in specs.items() if grid.cuts == "all" and (reason := _refusal(spec))}
    left = {label: _entrant(label, spec) for label, spec in specs.items() if label not in refused}
    if refused and ALL not in grid.scorers and left.keys().isdisjoint(grid.scorers):
        raise OptionError("; ".join(f"scorer {label!r} cannot score seams: {why}" for label, why in refused.items()))
    for label, reason in refused.items():
        progress.note(f"the scorer {label} is left out: it cannot score seams, since {reason}")
    return left


def _refusal(spec: ComponentSpec) -> str | None:
    """Tell why a scorer cannot score seams; None if it can, or if that is not known without a model."""
    if (sample := _for_one_block(spec)) is None:
        return None
    with attributing("scorer", spec.name, type(sample)):
        return sample.refusal("seam")


def _entrant(label: str, spec: ComponentSpec) -> Entrant:
    if "seed" in spec.options:
        raise OptionError(f"the scorer {label!r} gets its seed from the repeat; give the grid a seed instead")
    check_spec(label, spec)
    cls = registry().get("scorer", spec.name)
    assert issubclass(cls, Scorer)
    blind, seeded = is_blind(spec.name), "seed" in cls.Config.model_fields
    sample = _for_one_block(spec)
    sweep = getattr(sample, "sweep", None)
    shards = not blind and sweep is not None and not sweep.whole
    code = _code(cls) if sample is None else _code_of(sample)
    return Entrant(spec=spec, blind=blind, seeded=seeded, shards=shards, code=code)


def _for_one_block(spec: ComponentSpec) -> Scorer | None:
    """Make a scorer of a single block, to look at; None if it cannot be made for a single one."""
    try:
        made = create("scorer", spec.name, spec.options, 1)
    except LayerimpError:
        return None
    assert isinstance(made, Scorer)
    return made


def _chooser(spec: ComponentSpec, cuts: Cuts) -> Chooser:
    pruner = create_pruner(spec, cuts)
    return Chooser(spec=spec, nested=pruner.nested, code=_code_of(pruner))


def _code_of(component: Component) -> str:
    """Return a digest of the source of a component and of its parts."""
    own = _code(type(component))
    return digest([own, *map(_code_of, component.parts)]) if component.parts else own


def _code(cls: type) -> str:
    """Return a digest of the source of a component's module or package, which changes with every edit."""
    top = cls.__module__.partition(".")[0]
    place = Path(str(sys.modules[top].__file__ or ""))
    sources = sorted(place.parent.rglob("*.py")) if place.name == "__init__.py" else [place]
    return digest([path.read_text(encoding="utf-8") for path in sources if path.is_file()])


def _measures(recipe: Recipe, permissions: Permissions, progress: Progress) -> list[Measure]:
    prepared(recipe, permissions, progress)  # refuses what is wrong with the tasks together, such as two of one name
    found = []
    settings = recipe.model_dump(mode="json", include=set(SHARED - {"tasks", "batch_size"}))
    for label, spec in recipe.evaluators.items():
        cls = registry().get("evaluator", spec.name)
        assert issubclass(cls, Evaluator)
        if cls.kind != "quality":
            raise OptionError(f"the evaluator {label!r} measures costs; a grid compares what is left of the quality")
        for task in recipe.tasks or () if reads_tasks(spec) else (label,):
            evaluator = prepared_for(label, task, recipe, permissions, progress)
            with attributing("evaluator", label, cls):
                tag = evaluator.fingerprint() or digest([_code(cls), spec.model_dump(), task, settings])
            found.append(Measure(evaluator=label, task=task, tag=tag))
    return found


def _model_digest(model: str, store: Store) -> str:
    """Return a digest of a directory's files, or for a model on the hub the revision in the local cache."""
    place = expanded(located("models", model))
    if place.is_dir():
        files = [path for path in sorted(place.iterdir()) if path.is_file() and path.suffix != ".md"]
        return digest({path.name: _file_digest(path, store) for path in files if not path.name.startswith(".")})
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        with quiet():
            revision = extract_commit_hash(cached_file(model, "config.json"), None)
    except Exception as error:
        raise ModelError(
            f"cannot load the model {model!r}: no directory here has that name, nor has the hub"
        ) from error
    if revision is None:
        raise ModelError(f"the revision of the model {model!r} is unknown; download it, and name its directory")
    return f"{model}@{revision}"


def _calibration_digest(recipe: Recipe, permissions: Permissions, progress: Progress, store: Store) -> str:
    spec = recipe.calibration
    form = {"packing": spec.packing, "label_field": spec.label_field}
    return _text_digest(str(spec.source), recipe, permissions, progress, store, **form)


def _text_digest(
    source: str, recipe: Recipe, permissions: Permissions, progress: Progress, store: Store, **form: Any
) -> str:
    """Return a digest of a text file's content or of a task's training split, or the name of a text on the hub."""
    if (task := task_of(source)) is not None:
        evaluator = for_training(recipe, task, permissions, progress)
        with attributing("evaluator", evaluator.name, type(evaluator)):
            return digest([source, evaluator.fingerprint()])
    check_source(source, again=True, **form)
    place = expanded(located("texts", source))
    return _file_digest(place, store) if place.is_file() else source


def _file_digest(path: Path, store: Store) -> str:
    place, status = str(path.resolve()), path.stat()
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    if known := store.known_digest(place, stamp):
        return known
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    store.keep_digest(place, stamp, found)
    return found
