"""Ways to drive a model over the calibration set, and the traces that they emit."""

from layerimp.blocks import Batch
from layerimp.sweep.ablation import Ablation
from layerimp.sweep.backward import Backward
from layerimp.sweep.contract import Scouting, Sweep, Trace
from layerimp.sweep.forward import Forward

__all__ = ["Ablation", "Backward", "Batch", "Forward", "Scouting", "Sweep", "Trace"]
