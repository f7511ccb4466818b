"""The text that drives scoring: read, drawn, packed into rows, and checked."""

from layerimp.calibration.sampling import CalibrationSet, load_calibration
from layerimp.calibration.stream import TextStream

__all__ = ["CalibrationSet", "TextStream", "load_calibration"]
