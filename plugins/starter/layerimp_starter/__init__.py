"""The starter: a small trained model with text and tasks, so that every command runs without further files."""

from __future__ import annotations

from pathlib import Path

from layerimp import hookimpl
from layerimp.assets import Assets

HERE = Path(__file__).parent
MODEL = HERE / "model"
DATA = HERE / "data"
TASKS = HERE / "tasks"


@hookimpl
def layerimp_assets() -> Assets:
    """Return the model and the text `starter`, and the tasks `starter_stories`, `_sentiment` and `_qa`."""
    return Assets(models={"starter": MODEL}, texts={"starter": DATA / "calibration.jsonl"}, tasks=(TASKS,))
