"""The calibration text `prose`: passages from eighteen English books whose copyright has expired."""

from __future__ import annotations

from pathlib import Path

from layerimp import hookimpl
from layerimp.assets import Assets


@hookimpl
def layerimp_assets() -> Assets:
    """Return the text `prose`."""
    return Assets(texts={"prose": Path(__file__).parent / "prose.jsonl"})
