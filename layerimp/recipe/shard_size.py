"""The largest size of one file of a checkpoint's weights."""

from __future__ import annotations

import re

from layerimp.errors import OptionError


def checked_size(size: str) -> str:
    """Check the size of a file, such as 5GB, in the form that Transformers takes.

    Raises:
        OptionError: the text is not a size.
    """
    if not re.fullmatch(r"\d+(\.\d+)?\s?[KMGT]B", size):
        raise OptionError(f"max_shard_size {size!r} is no size; give one such as 5GB or 500MB")
    return size.replace(" ", "")
