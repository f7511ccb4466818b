"""The directory for the state of a healer's long work, named after everything that determines the result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from layerimp.models.fingerprint import model_fingerprint
from layerimp.steps import named

if TYPE_CHECKING:
    from pathlib import Path

    from layerimp.blocks.stack import Batch
    from layerimp.cache.unfinished import Unfinished
    from layerimp.healer import Case, Healer


def workspace(unfinished: Unfinished, case: Case, healer: Healer, further: Iterable[Batch]) -> Path | None:
    """Return the directory for the state of a healing; None if there can be none.

    Args:
        unfinished: The place of such directories.
        case: The healer's input, before the healer has changed anything.
        healer: The healer.
        further: Further text for healing. If it has no `fingerprint`, there is no directory, because an interrupted run
            could not know whether the text is still the same.
    """
    more = None if further == () else getattr(further, "fingerprint", None)
    if further != () and more is None:
        return None
    content: dict[str, Any] = {
        "healer": healer.name,
        "options": healer.config.model_dump(mode="json"),
        "intact": model_fingerprint(case.intact.model, None),
        "pruned": model_fingerprint(case.pruned.model, None),
        "gaps": [[str(sublayer) for sublayer in gap.removed] for gap in case.gaps],
        "text": [_digest(case.batches), _digest(case.held_out), more],
    }
    removed = named([step for gap in case.gaps for step in gap.steps])
    return unfinished.directory(content, f"{healer.name} of {type(case.intact.model).__name__} without {removed}")


def _digest(batches: Sequence[Batch]) -> str:
    """Return a hash of the batches of a text."""
    digest = hashlib.blake2b(digest_size=20)
    for batch in batches:
        for name, value in sorted(batch.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
