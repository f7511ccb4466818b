"""Ways to drive a model over the calibration set, and the traces that they emit."""

from layerimp.blocks.head import Quantity
from layerimp.blocks.stack import Batch
from layerimp.sweep.ablation import Ablation
from layerimp.sweep.backward import Backward
from layerimp.sweep.base import Drive, Scouting, Sweep, Trace
from layerimp.sweep.forward import Forward
from layerimp.sweep.replay import Recorded, Replay

__all__ = [
    "Ablation",
    "Backward",
    "Batch",
    "Drive",
    "Forward",
    "Quantity",
    "Recorded",
    "Replay",
    "Scouting",
    "Sweep",
    "Trace",
]
