"""Output directories that appear complete under their final name, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerimp._paths import expanded
from layerimp.errors import OutputError


@contextmanager
def staged(target: str | Path, *, why_not: Callable[[Path], str | None] | None = None) -> Iterator[Path]:
    """A temporary sibling of `target`, which is renamed to `target` if no error occurs, and removed otherwise.

    Args:
        target: The final directory.
        why_not: Tells why an existing directory may not be replaced, or returns None if it may. By default no directory
            may be replaced.

    Raises:
        OutputError: the target exists and must not be replaced, or cannot be written.
    """
    target = expanded(target).absolute()
    check_target(target, why_not=why_not)
    missing = [place for place in target.parents if not place.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = _sibling(target)
    except OSError as error:
        raise OutputError(f"cannot write in {target.parent}: {error.strerror}") from error
    try:
        yield stage
        check_target(target, why_not=why_not)  # it may have been created in the meantime
        _open_up(stage)
        _rename(stage, target)
    except OSError as error:
        if _is_about(error, stage, target):
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        with suppress(OSError):  # a parent is not empty: it holds the output, or files of others
            for place in missing:
                place.rmdir()


def check_target(target: Path, *, why_not: Callable[[Path], str | None] | None = None) -> None:
    """Refuse a target that exists, unless `why_not` allows replacing it.

    Raises:
        OutputError: the target exists and must not be replaced.
    """
    if not os.path.lexists(target) or (target.is_dir() and not target.is_symlink() and not any(target.iterdir())):
        return
    if why_not is None:
        raise OutputError(f"the output {target} exists; name another, or replace it with --overwrite")
    if reason := "it is no directory" if target.is_symlink() or not target.is_dir() else why_not(target):
        raise OutputError(f"--overwrite does not replace {target}: {reason}")


def _is_about(error: OSError, stage: Path, target: Path) -> bool:
    """Whether an error comes from writing the output, rather than from other work in the context."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    places = (Path(str(name)).absolute() for name in (error.filename, error.filename2) if name is not None)
    return any(place.is_relative_to(root) for place in places for root in (stage, target))


def _open_up(stage: Path) -> None:
    """Give an output the permissions of any new files: safetensors, and the staging itself, leave out other users."""
    mask = os.umask(0)
    os.umask(mask)
    for entry in (stage, *stage.rglob("*")):
        entry.chmod((0o777 if entry.is_dir() else 0o666) & ~mask)


def _rename(stage: Path, target: Path) -> None:
    if not target.exists():
        stage.rename(target)
        return
    old = _sibling(target)
    try:
        target.rename(old / target.name)
        stage.rename(target)
    finally:
        if not target.exists():  # after an error, or an interrupt
            (old / target.name).rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _sibling(target: Path) -> Path:
    """Create a hidden directory beside `target`; a process that is killed leaves it behind."""
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.layerimp-", dir=target.parent))
