"""The groups `zero-shot` and `zero-shot-9`, and the tasks of the AVSS paper (Song et al. 2024, section 4)."""

from __future__ import annotations

from pathlib import Path

from layerimp import hookimpl
from layerimp.assets import Assets

TASKS = Path(__file__).parent


@hookimpl
def layerimp_assets() -> Assets:
    """The task files."""
    return Assets(tasks=(TASKS,))
