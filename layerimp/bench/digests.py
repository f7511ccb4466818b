"""Digests of the files of models and texts, so that the keys of cells depend on their content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from layerimp._paths import expanded
from layerimp.bench.cells import digest
from layerimp.blocks.modes import quiet
from layerimp.defaults import HUB, HUB_TEXT
from layerimp.errors import ModelError
from layerimp.registry.assets import located

if TYPE_CHECKING:
    from layerimp.bench.store import Digests


class FileDigests:
    """Computes digests of files, unless they are known.

    Attributes:
        known: The known digests, to which new ones are added.
    """

    def __init__(self, known: Digests) -> None:
        self.known = known

    def of_model(self, model: str) -> str:
        """Return a digest of a directory's files, or for a model on the hub the revision in the local cache.

        Raises:
            ModelError: there is no such model, its revision is unknown, or a file cannot be read.
        """
        place = expanded(located("models", model))
        if place.is_dir():
            files = [path for path in sorted(place.iterdir()) if path.is_file() and path.suffix != ".md"]
            return digest({path.name: self.of_file(path) for path in files if not path.name.startswith(".")})
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

    def of_text(self, source: str) -> str:
        """Return a digest of a text file, or the full name of a text on the hub.

        Of a data set in a local directory its files count, and the configuration and the split that the source names.

        Raises:
            ModelError: a file cannot be read.
        """
        if source == HUB:  # also where a file has this name
            return HUB_TEXT
        place = expanded(located("texts", source))
        if not place.is_file():
            name, _, part = source.partition(":")
            paths = {str(path.relative_to(name)): path for path in Path(name).rglob("[!.]*") if path.is_file()}
            files = {inside: self.of_file(path) for inside, path in paths.items()}
            return digest([part, files]) if files else source
        return self.of_file(place)

    def of_file(self, path: Path) -> str:
        """Return the digest of a file's content.

        Raises:
            ModelError: the file cannot be read.
        """
        status = path.stat()
        stamped = str(path.resolve()), f"{status.st_size} {status.st_mtime_ns}"
        if stamped not in self.known:
            try:
                with path.open("rb") as file:
                    hashed = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            except OSError as error:
                raise ModelError(f"cannot read {path}: {error.strerror}") from error
            self.known[stamped] = hashed.hexdigest()
        return self.known[stamped]
