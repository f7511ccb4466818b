"""Look up lm-eval's own tasks, groups and tags, and parse only the few files that can define the requested names.

lm-eval builds an index of all its task files, which takes seconds. A file contributes to the entry of a name only if
the name occurs in the file, or in a file that it includes. So it is enough to search the bytes of the files for the
name, and to parse the files that contain it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Registry = dict[str, Any]
"""Name -> lm-eval's entry of a task, a group or a tag."""

_INLINE = frozenset({"dataset_path", "custom_dataset"})  # a member with one of these keys defines a task inline
_INCLUDE = re.compile(rb"""^["']?include["']?[ \t]*:(.*(?:\n[ \t]*-.*)*)""", re.MULTILINE)
_FILE = re.compile(rb"""[^\s"'\[\],]{2,}""")


def entries(names: Iterable[str]) -> Registry:
    """Return lm-eval's entries of these names and of all names that they refer to, without names lm-eval lacks."""
    from layerimp_harness.lm_eval_names import TaskIndex

    asked = dict.fromkeys(names)
    searched: dict[str, None] = {}
    chosen: set[Path] = set()
    registry: Registry = {}
    while unknown := [name for name in asked if name not in searched]:
        searched.update(dict.fromkeys(unknown))
        chosen.update(_mentioning(unknown))
        registry = {}
        for path in sorted(chosen, key=Path.as_posix):  # as in lm-eval: the first file that uses a name defines it
            try:
                TaskIndex.process_cfg(_config(path), path, registry)
            except Exception:  # lm-eval skips files that it cannot read
                continue
        for name in list(asked):
            if name in registry:
                asked.update(dict.fromkeys(missing(registry[name].cfg or {}, registry)))
    return registry


def missing(
    config: Mapping[str, Any], registry: Registry, *, whole: bool = False, _above: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield the names that a group refers to but the registry lacks.

    Args:
        config: The configuration of the group.
        registry: The known entries.
        whole: Whether the registry holds all of lm-eval's entries. Then a member that it lacks may be defined by the
            group's own keys, and is not missing.
    """
    inside = members(config)
    for member in inside if isinstance(inside, list) else ():
        here = member if isinstance(member, dict) else {}
        name = str(here.get("group") or here.get("task") or member)
        if name in registry:
            if name not in _above:
                yield from missing(registry[name].cfg or {}, registry, whole=whole, _above=(*_above, name))
        elif "group" in here:
            yield from missing(here, registry, whole=whole, _above=_above)
        elif not _INLINE & {*here} and not (whole and _INLINE & {*config}):
            yield name


def members(config: Mapping[str, Any] | None) -> Any:
    """Return the members of a group; for a task, its name or None."""
    return (config or {}).get("task")


def _mentioning(names: Iterable[str]) -> Iterator[Path]:
    """Yield the task files that contain one of the names, or that include a file that does."""
    wanted = [name.encode() for name in names]
    whole = re.compile(rb"(?<![\w-])(?:" + b"|".join(map(re.escape, wanted)) + rb")(?![\w-])")

    @cache
    def mentions(path: Path) -> bool:
        text = _text(path)
        if any(name in text for name in wanted) and whole.search(text):
            return True
        return any(map(mentions, _included(path)))

    return filter(mentions, _files())


@cache
def _files() -> tuple[Path, ...]:
    from layerimp_harness.lm_eval_names import tasks

    return tuple(Path(tasks.__file__).parent.rglob("*.yaml"))


@cache
def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@cache
def _included(path: Path) -> tuple[Path, ...]:
    lines = b" ".join(_INCLUDE.findall(_text(path)))
    return tuple(path.parent / name.decode(errors="replace") for name in _FILE.findall(lines))


@cache
def _config(path: Path) -> dict[str, Any]:
    from layerimp_harness.lm_eval_names import load_yaml

    config: dict[str, Any] = load_yaml(path, resolve_func=False)
    return config
