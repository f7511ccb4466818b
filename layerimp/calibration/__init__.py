"""The calibration text, which drives scoring: reading, sampling, packing into rows, and validation."""

from layerimp.calibration.sampling import CalibrationSet, load_calibration
from layerimp.calibration.stream import TextStream

__all__ = ["CalibrationSet", "TextStream", "load_calibration"]
