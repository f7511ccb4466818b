"""Find tasks by name or file, check them, and load them, before a model runs.

Local tasks take precedence over lm-eval's own. lm-eval's whole index takes seconds to build, and is only built for a
name that is not found otherwise, in order to suggest similar names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerimp.errors import LayerimpError, TaskError, unknown_name
from layerimp.registry.assets import assets
from layerimp_harness import guard
from layerimp_harness.attribution import explained
from layerimp_harness.building import GuardedFactory
from layerimp_harness.builtin import entries, members, missing
from layerimp_harness.deferred import load_all
from layerimp_harness.limits import limits_by_task, name_of
from layerimp_harness.metrics import Saturating

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from layerimp.evaluator import DataFile
    from layerimp_harness.builtin import Registry
    from layerimp_harness.deferred import Deferred


@dataclass
class TaskSet:
    """Loaded tasks.

    Attributes:
        tasks: The leaf tasks by name.
        groups: The groups by name.
        files: The local task files from which the tasks were read.
        parts: The tasks that each name in the options stands for, by that name.
        built: What lm-eval made of each name: a task, a group, or the tasks of a tag.
    """

    tasks: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    parts: dict[str, TaskSet] = field(default_factory=dict)
    built: dict[str, list[Any]] = field(default_factory=dict)

    def only(self, names: Iterable[str]) -> TaskSet:
        """Return the loaded tasks that some of the names in the options stand for."""
        some = TaskSet(parts={name: self.parts[name] for name in names})
        for part in some.parts.values():
            some.tasks |= part.tasks
            some.groups |= part.groups
            some.files += part.files
            some.built |= part.built
        return some

    @property
    def names(self) -> list[str]:
        """The names of the tasks and groups that were asked for, without those inside a group."""
        return [name_of(item) for items in self.built.values() for item in items]

    def data_files(self) -> list[DataFile]:
        """Return the local files of rows that were read so far."""
        return [file for task in self.tasks.values() if task.rows is not None for file in task.rows.files]


def load_tasks(config: Any) -> TaskSet:
    """Load every task that the options of the harness name.

    Args:
        config: The options of the harness.

    Raises:
        UnknownNameError: a name is neither a local task nor one of lm-eval's.
        TaskError: a task cannot be read or is not allowed, or its data set cannot be loaded.
    """
    tasks = find_tasks(config)
    limits = limits_by_task(tasks.built, config.limit, config.limits)
    for name, task in tasks.tasks.items():
        task.limit = limits[name]
        task.shots = task.stated["num_fewshot"] = shots_of(task, config.num_fewshot)
    load_all(tasks.tasks.values(), config.data_dir)
    for name, task in tasks.tasks.items():
        _configure(name, task, config)
    return tasks


def find_tasks(config: Any) -> TaskSet:
    """Return every task that the options of the harness name, checked but without its data.

    Raises:
        UnknownNameError: a name is neither a local task nor one of lm-eval's.
        TaskError: a task cannot be read or is not allowed.
    """
    from layerimp_harness.lm_eval_names import TaskManager

    local = {**_index(_shipped()), **_local_index(config.task_path)}
    parts: dict[str, TaskSet] = {}
    for spec in dict.fromkeys(config.tasks):
        factory = GuardedFactory(config.data_dir, allow_code=config.allow_task_code)
        entry, registry = _find(spec, local, config.task_path)
        try:
            loaded = factory.build_from(entry, registry)
        except LayerimpError:
            raise
        except Exception as error:
            raise explained(spec, error) from error
        own = loaded if isinstance(loaded, list) else [loaded]
        _check_distinct([*chain.from_iterable(part.built[name] for name, part in parts.items()), *own])
        held = TaskManager(include_defaults=False).load(own)
        parts[spec] = TaskSet(held["tasks"], held["groups"], list(factory.files), built={spec: own})
    return TaskSet(parts=parts).only(parts)


def described(task_path: Path | None, containing: str) -> dict[str, str]:
    """Return tasks, groups and tags by name, each described by the first comment line of its file, or by its kind.

    Args:
        task_path: A directory with further task files, besides those that ship with plugins.
        containing: A part of the name; without it, the thousands of lm-eval's own tasks are left out.

    Raises:
        TaskError: the task path is not a directory.
    """
    local = {**_index(_shipped()), **_local_index(task_path)}
    index = {**(whole_index() if containing else {}), **local}
    return {name: _summary(entry, own=name in local) for name, entry in sorted(index.items()) if containing in name}


def _summary(entry: Any, *, own: bool) -> str:
    """Return a one-line description of a task."""
    comment = entry.yaml_path.read_text(encoding="utf-8").partition("\n")[0] if own and entry.yaml_path else ""
    return comment.removeprefix("#").strip() if comment.startswith("#") else f"a {entry.kind.name.lower()}"


def _check_distinct(built: list[Any]) -> None:
    seen: set[str] = set()
    for item in built:
        for task in item.get_all_tasks() if hasattr(item, "get_all_tasks") else [item]:
            if task.task_name in seen:
                raise TaskError(f"two of the tasks are named {task.task_name!r}")
            seen.add(task.task_name)


def _configure(name: str, task: Any, config: Any) -> None:
    """Apply the options to a task, and test the task on its first document."""
    if getattr(task, "MULTIMODAL", False):
        raise TaskError(f"task {name!r} has images or sounds; only text is supported")
    if getattr(task, "UNSAFE_CODE", False) and not config.allow_task_code:
        raise TaskError(f"task {name!r} runs code that the model writes; --allow-task-code allows it")
    _check_choices(name, task)
    task.set_config("num_fewshot", task.shots)  # a task that is written in Python does not take it from its file
    aggregations = task.aggregation()
    for metric, aggregation in list(aggregations.items()):
        aggregations[metric] = Saturating(aggregation)
    task.set_fewshot_seed(config.seed)
    try:
        task.build_all_requests(limit=1)
    except Exception as error:
        if isinstance(error, ValueError) and "larger than population" in str(error):
            shots = task.get_config("num_fewshot")
            raise TaskError(
                f"task {name!r} has fewer than {shots} documents for examples; ask for fewer (--num-fewshot)"
            ) from error
        raise explained(name, error, task.file) from error


def shots_of(task: Deferred, asked: int | None) -> int:
    """Return the number of examples; as in lm-eval, a task that itself sets none keeps that setting."""
    own = task.stated.get("num_fewshot")
    return asked if asked is not None and own != 0 else own or 0


def _check_choices(name: str, task: Any) -> None:
    """Refuse a list of choices with a template, which lm-eval would take literally, as in `["{{right}}", "no"]`."""
    choices = task.get_config("doc_to_choice")
    listed = choices.values() if isinstance(choices, dict) else choices if isinstance(choices, list) else ()
    for choice in listed:
        if isinstance(choice, str) and ("{{" in choice or "{%" in choice):
            raise TaskError(
                f"task {name!r}: lm-eval takes {choice!r} in the list doc_to_choice literally; write one template for "
                'all choices, such as "{{[right, wrong]}}"'
            )


def _find(spec: str, local: Registry, task_path: Path | None) -> tuple[Any, Registry]:
    """Return the entry of `spec`, and the registry in which the members of its groups are looked up."""
    registry = local
    neighbourhood = sorted(task_path.rglob("*.yaml")) if task_path else []
    if spec.endswith(".yaml") or Path(spec).expanduser().is_file():
        entry = _file_entry(Path(spec).expanduser())
        if isinstance(members(entry.cfg), list):  # a group may name tasks from the same directory
            neighbours = sorted(entry.yaml_path.parent.glob("*.yaml"))
            registry = {**local, **_index(neighbours)}
            neighbourhood += neighbours
    elif spec in local:
        entry = local[spec]
    else:
        _fail_on_unreadable(neighbourhood, spec)
        registry = {**entries([spec]), **local}
        if spec not in registry:
            registry = {**whole_index(), **local}
        if spec not in registry:
            raise unknown_name("task", spec, registry, otherwise="layerimp tasks TEXT finds names that contain a text.")
        entry = registry[spec]
    if lacking := list(missing(entry.cfg or {}, registry)):
        for name in lacking:
            _fail_on_unreadable(neighbourhood, name)
        registry = {**entries(lacking), **registry}
        if any(missing(entry.cfg or {}, registry, whole=True)):
            registry = {**whole_index(), **registry}
        for name in missing(entry.cfg or {}, registry, whole=True):
            raise unknown_name("task", name, registry, of=f"group {entry.name!r}")
    return entry, dict(registry)  # a copy, since lm-eval adds entries while building


def _file_entry(path: Path) -> Any:
    from layerimp_harness.lm_eval_names import Entry, Kind, TaskIndex

    if not path.is_file():
        raise TaskError(f"task file {path} does not exist")
    config = _merged(path)
    name = config.get("group") if "group" in config else config.get("task")
    if not isinstance(name, str):
        raise TaskError(f"task file {path} has no name: it needs `task: NAME` or `group: NAME`")
    kind = TaskIndex._kind_of(config)
    if kind is Kind.GROUP and not isinstance(members(config), list):
        kind = Kind.TASK  # old task files use `group` for a tag
        name = config.get("task", name)
    return Entry(name=name, kind=kind, yaml_path=path.resolve(), cfg=config)


def _merged(path: Path) -> dict[str, Any]:
    """Return the content of a task file, merged with its includes, as data."""
    from layerimp_harness.lm_eval_names import load_yaml

    guard.read_chain(path)
    try:
        config: dict[str, Any] = load_yaml(path, resolve_func=False)
    except Exception as error:
        raise TaskError(f"task file {path}: {error}") from error
    return config


def _local_index(task_path: Path | None) -> Registry:
    if task_path is None:
        return {}
    if not task_path.is_dir():
        raise TaskError(f"the task path {task_path} is no directory")
    from layerimp_harness.lm_eval_names import TaskManager

    return dict(TaskManager(include_defaults=False, include_path=str(task_path)).task_index)


def _shipped() -> list[Path]:
    """Return the task files that ship with plugins."""
    return [path for directory in assets().tasks for path in sorted(directory.rglob("*.yaml"))]


def _index(paths: list[Path]) -> Registry:
    from layerimp_harness.lm_eval_names import TaskIndex

    registry: Registry = {}
    for path in paths:
        try:
            TaskIndex.process_cfg(_merged(path), path.resolve(), registry)
        except (TaskError, KeyError, TypeError, ValueError):
            continue  # not a task file, or one that was not requested
    return registry


@cache
def whole_index() -> Mapping[str, Any]:
    """Return lm-eval's own tasks, groups and tags; the first call takes seconds."""
    from layerimp_harness.lm_eval_names import TaskManager

    return dict(TaskManager().task_index)


def _fail_on_unreadable(paths: list[Path], name: str) -> None:
    """Raise the error of a malformed file that may define `name`; lm-eval would silently skip the file.

    Raises:
        TaskError: a file that mentions the name cannot be read.
    """
    for path in paths:
        if name in path.stem or name.encode() in path.read_bytes():
            _merged(path)
