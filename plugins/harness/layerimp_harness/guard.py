"""What a task file may do: describe a task, and run no code unless that is allowed.

The files are read as data only. `!function` imports the Python file that it names as soon as lm-eval loads
the task, so a file is inspected, with everything that it includes, before lm-eval sees it.
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
# The keys below these are the user's own: a `class` there means nothing.
_DATA = frozenset({"metadata", "samples"})

# A key that leads to code -> the values with which it does not; None: no value. They are the Python class of a
# task, a generation loop from a repository, a metric that is a script, answers that are executed.
_HARMLESS: dict[str, frozenset[str] | None] = {
    "class": None,
    "custom_generate": None,
    "hf_evaluate": frozenset({"false", "no", "off"}),
    "unsafe_code": frozenset({"false", "no", "off"}),
}
# A key -> how values that lead to code begin: pickles, and templates that are rendered outside the sandbox.
_HARMFUL = {"dataset_path": "pandas", "use_prompt": "promptsource"}


@cache
def builtin_directory() -> Path:
    """Where lm-eval keeps the tasks that it ships."""
    from layerimp_harness.lm_eval_names import tasks

    return Path(tasks.__file__).resolve().parent


def is_builtin(path: Path) -> bool:
    """Whether a task file belongs to lm-eval."""
    return path.resolve().is_relative_to(builtin_directory())


def is_installed(path: Path) -> bool:
    """Whether a task file came with lm-eval or with a plugin. It is trusted, as what it came with is."""
    places = (builtin_directory(), *(place.resolve() for place in assets().tasks))
    return any(path.resolve().is_relative_to(place) for place in places)


def read_chain(path: Path, _above: tuple[Path, ...] = ()) -> list[Path]:
    """A task file and the files that it includes, itself first.

    Raises:
        TaskError: a file cannot be read, is no YAML mapping, or includes itself.
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
    """One task file as data, its includes not followed and its functions not imported.

    Raises:
        TaskError: the file cannot be read, or is no YAML mapping.
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
    """Raise a TaskError if one of the files would run Python; says where, and how to allow it."""
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
