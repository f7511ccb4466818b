"""Refuse task files that would run code, unless that is allowed.

The files are read as data only. As soon as lm-eval loads a task, `!function` imports the Python file that it names. So
each file is inspected, together with all files that it includes, before lm-eval loads it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from layerimp.errors import TaskError
from layerimp.registry.assets import assets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
# The keys below these are the user's own, so a `class` there has no effect.
_DATA = frozenset({"metadata", "samples"})

# A key that makes lm-eval run code -> the values with which it runs none; None: every value runs code. The keys are for
# the Python class of a task, a generation loop from a repository, a metric script, and the execution of answers.
_HARMLESS: dict[str, frozenset[str] | None] = {
    "class": None,
    "custom_generate": None,
    "hf_evaluate": frozenset({"false", "no", "off"}),
    "unsafe_code": frozenset({"false", "no", "off"}),
}
# A key -> the prefix of values that make lm-eval run code: pickles, and templates rendered outside the sandbox.
_HARMFUL = {"dataset_path": "pandas", "use_prompt": "promptsource"}


@cache
def builtin_directory() -> Path:
    """Return the directory of the tasks that ship with lm-eval."""
    from layerimp_harness.lm_eval_names import tasks

    return Path(tasks.__file__).resolve().parent


def is_builtin(path: Path) -> bool:
    """Return whether a task file belongs to lm-eval."""
    return path.resolve().is_relative_to(builtin_directory())


def is_installed(path: Path) -> bool:
    """Return whether a task file ships with lm-eval or with a plugin, and is therefore as trusted as that package."""
    places = (builtin_directory(), *(place.resolve() for place in assets().tasks))
    return any(path.resolve().is_relative_to(place) for place in places)


def read_chain(path: Path, _above: tuple[Path, ...] = ()) -> list[Path]:
    """Return a task file, followed by the files that it includes.

    Raises:
        TaskError: a file cannot be read, is not a YAML mapping, or includes itself.
    """
    path = path.expanduser().resolve()
    if path in _above:
        raise TaskError(f"task file {path} includes itself")
    include = read(path).get("include", [])
    chain = [path]
    for name in include if isinstance(include, list) else [include]:
        if not isinstance(name, str):
            raise TaskError(f"task file {path}: include: {name!r} is no path")
        chain += read_chain(path.parent / name, (*_above, path))
    return chain


def read(path: Path) -> dict[str, Any]:
    """Return the content of one task file as data, without following includes or importing functions.

    Raises:
        TaskError: the file cannot be read, or is not a YAML mapping.
    """
    from layerimp_harness.lm_eval_names import load_yaml

    try:
        config: dict[str, Any] = load_yaml(path, resolve_func=False, recursive=False)
    except (OSError, UnicodeError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None) or error
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise TaskError(f"task file {path}{where}: {' '.join(str(reason).split())}") from error
    return config


def refuse_code(chain: Sequence[Path]) -> None:
    """Check that none of the task files would run Python.

    Raises:
        TaskError: a file would run Python; the text says where, and how to allow it.
    """
    for path in chain:
        root = yaml.compose(path.read_bytes(), Loader=_LOADER)
        for line, what in _offences(root, set(), keys=True):
            raise TaskError(
                f"task file {path}, line {line}: {what} runs code; --allow-task-code allows it, if you trust the file"
            )


def _offences(node: yaml.Node | None, seen: set[int], *, keys: bool) -> Iterator[tuple[int, str]]:
    if node is None or id(node) in seen:  # an anchor may refer to itself
        return
    seen.add(id(node))
    if not node.tag.startswith(_CORE) or node.tag.startswith(f"{_CORE}python"):
        yield node.start_mark.line + 1, f"the tag {node.tag}"
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _offences(child, seen, keys=keys)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if keys and _leads_to_code(name, value):
                yield key.start_mark.line + 1, f"the key {name}"
            yield from _offences(key, seen, keys=keys)
            yield from _offences(value, seen, keys=keys and name not in _DATA)


def _leads_to_code(key: str, value: yaml.Node) -> bool:
    text = value.value.lower() if isinstance(value, yaml.ScalarNode) else ""
    if key in _HARMFUL:
        return text.startswith(_HARMFUL[key])
    return key in _HARMLESS and text not in (_HARMLESS[key] or ())
