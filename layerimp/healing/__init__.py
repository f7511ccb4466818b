"""Repairing what is left of a pruned model: what healers work with, and what runs them."""

from layerimp.healing.engine import Healed
from layerimp.healing.gram import Gram
from layerimp.healing.parameters import replace, trying
from layerimp.healing.scaling import scale_stream, stream_scaled
from layerimp.healing.states import State, states
from layerimp.healing.teaching import Teaching

__all__ = ["Gram", "Healed", "State", "Teaching", "replace", "scale_stream", "states", "stream_scaled", "trying"]
