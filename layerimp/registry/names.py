"""The names of installed components and assets, cached between runs, for shells and editors that complete them.

To find the names, all plugins have to be imported, and torch with them, which takes seconds. A shell asks at every
press of TAB. So the names are kept in a file, one for each Python environment, with a fingerprint of what they come
from. The fingerprint is taken without importing a plugin; an installation, an update or an edit of a plugin changes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import site
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from layerimp._paths import write_whole
from layerimp._version import __version__
from layerimp.cache.directory import cache_directory
from layerimp.registry.loader import DISABLE_VARIABLE, installed_points

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from layerimp.registry.catalog import Kind

KINDS: tuple[Kind, ...] = ("scorer", "pruner", "healer", "evaluator")
Named = Literal["scorer", "pruner", "healer", "evaluator", "model", "text", "task"]
Names = dict[Named, dict[str, str]]
"""Descriptions of one line by kind and name; empty if there is none."""


def installed_names() -> Names:
    """Return the installed components, models, texts and tasks; from the file if nothing has changed."""
    fingerprint = _fingerprint()
    file = cache_directory("names") / f"{hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["fingerprint"] == fingerprint:
            stored: Names = kept["names"]
            return stored
    names = _loaded_names()
    with suppress(OSError):  # then they are found again next time
        write_whole(file, json.dumps({"fingerprint": fingerprint, "names": names}))
    return names


def _loaded_names() -> Names:
    """Find the names by loading all plugins."""
    from layerimp.registry.assets import assets
    from layerimp.registry.catalog import registry

    known = registry()
    names: Names = {kind: known.summaries(kind) for kind in KINDS}
    names["model"] = dict.fromkeys(sorted(assets().models), "")
    names["text"] = dict.fromkeys(sorted(assets().texts), "")
    names["task"] = known.tasks()
    return names


def _fingerprint() -> str:
    """Hash the sources of the names: the versions and files of plugins, and the state of the installation folders.

    Every installation changes one of these folders, and so can make a plugin importable that failed before.
    """
    digest = hashlib.sha256(f"{__version__} {os.environ.get(DISABLE_VARIABLE, '')}\n".encode())
    paths = [Path(place) for place in (*site.getsitepackages(), site.getusersitepackages())]
    for point in installed_points():
        version = point.dist.version if point.dist else ""
        digest.update(f"{point.name} {point.value} {version}\n".encode())
        paths += _files(point)
    for path in paths:
        with suppress(OSError):
            stat = path.stat()
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(point: EntryPoint) -> Iterator[Path]:
    """Yield the files of the module or package that an entry point names."""
    top, *inner = point.module.split(".")
    try:
        spec = find_spec(top)  # of a module inside a package it would import the package
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    if not inner and spec.submodule_search_locations is None:
        yield Path(spec.origin or "")
    for place in spec.submodule_search_locations or ():
        path = Path(place, *inner)
        yield path.with_suffix(".py")
        yield from sorted(file for file in path.rglob("*") if "__pycache__" not in file.parts)
