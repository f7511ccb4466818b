"""The types from which JSON documents are declared."""

from __future__ import annotations

from pydantic import ConfigDict, with_config

closed = with_config(ConfigDict(extra="forbid"))

Number = float | None
"""A number; null if it is infinite."""
