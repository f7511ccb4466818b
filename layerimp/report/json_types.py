"""What the declared JSON documents are made of."""

from __future__ import annotations

from pydantic import ConfigDict, with_config

closed = with_config(ConfigDict(extra="forbid"))

Number = float | None
"""A number; null where it is infinite."""
