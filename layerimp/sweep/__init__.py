"""Ways to drive a model over the calibration set, and the traces that they emit."""

from layerimp.blocks.head import Quantity
from layerimp.blocks.stack import Batch
from layerimp.sweep.ablation import Ablation
from layerimp.sweep.backward import Backward
from layerimp.sweep.base import Drive, Scouting, Series, Sweep, Trace
from layerimp.sweep.forward import Forward
from layerimp.sweep.replay import Recorded, Replay
from layerimp.sweep.units import Point, Unit

__all__ = [
    "Ablation",
    "Backward",
    "Batch",
    "Drive",
    "Forward",
    "Point",
    "Quantity",
    "Recorded",
    "Replay",
    "Scouting",
    "Series",
    "Sweep",
    "Trace",
    "Unit",
]
