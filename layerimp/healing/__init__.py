"""Healing of pruned models: the functions for healers, and the engine that runs a healer."""

from layerimp.healing.engine import Healed
from layerimp.healing.gaps import Writers
from layerimp.healing.parameters import replace, rounded, trying
from layerimp.healing.scaling import scale_stream, stream_scaled
from layerimp.healing.states import State, intact_states, states
from layerimp.healing.teaching import CHUNK_LOGITS, Teaching

__all__ = [
    "CHUNK_LOGITS",
    "Healed",
    "State",
    "Teaching",
    "Writers",
    "intact_states",
    "replace",
    "rounded",
    "scale_stream",
    "states",
    "stream_scaled",
    "trying",
]
