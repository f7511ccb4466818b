"""What is shown of a line in the results of rates.py."""

from __future__ import annotations

from finished import Line


def likelihood(line: Line, state: str) -> float:
    """Return the share of the likelihood that a state retains, beyond the model that knows only frequencies."""
    return _beyond(line, state, "loss")


def copying(line: Line, state: str) -> float | None:
    """Return the copying of a state as a share of the intact model's, of a classifier with labels the accuracy.

    It is None if the intact model copies nothing.
    """
    if line["intact"]["accuracy"] is not None:
        return _beyond(line, state, "accuracy")
    known = line[state]["fidelity"]["copying"]
    return known["accuracy"] / known["intact"] if known and known["intact"] else None


def _beyond(line: Line, state: str, field: str) -> float:
    intact, reached, nothing = line["intact"][field], line[state][field], line["chance"][field]
    return float((reached - nothing) / (intact - nothing))
