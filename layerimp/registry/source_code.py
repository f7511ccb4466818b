"""The source code of components, by which results are told apart that an edit or another version has made different."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from layerimp.component import Component


def code_of(component: Component | type[Component]) -> str:
    """Return a hash that changes with every edit of the module or package of a component, or of one of its parts.

    Code whose source is not known, such as that of a class from a prompt, has another hash each time.

    Args:
        component: The component; or its class, whose parts are not known.
    """
    cls = component if isinstance(component, type) else type(component)
    sources = [path.read_text(encoding="utf-8", errors="surrogateescape") for path in _files(cls)]
    own = _hash(sources) if sources else uuid4().hex
    return _hash([own, *map(code_of, component.parts)]) if component.parts else own


def _files(cls: type[Component]) -> list[Path]:
    """Return the files of the outermost module or package around a class that has files."""
    names = accumulate(cls.__module__.split("."), "{}.{}".format)
    files = (getattr(sys.modules.get(name), "__file__", None) for name in names)  # a namespace package has none
    place = Path(next(filter(None, files), ""))
    paths = sorted(place.parent.rglob("*.py")) if place.name == "__init__.py" else [place]
    return [path for path in paths if path.is_file()]


def _hash(texts: Sequence[str]) -> str:
    return hashlib.blake2b(json.dumps(texts, separators=(",", ":")).encode(), digest_size=16).hexdigest()
