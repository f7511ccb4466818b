"""The tasks of the AVSS paper (Song et al. 2024, section 4): `layerimp_sst2`, `_squad`, `_hackernews` and `_pile`."""

from __future__ import annotations

from pathlib import Path

from layerimp import hookimpl
from layerimp.assets import Assets

TASKS = Path(__file__).parent


@hookimpl
def layerimp_assets() -> Assets:
    """The task files."""
    return Assets(tasks=(TASKS,))
