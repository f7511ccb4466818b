"""The calibration text, which drives scoring: reading, sampling, packing into rows, and validation."""

from layerimp.calibration.further_text import FurtherText
from layerimp.calibration.sampling import CalibrationSet, load_calibration

__all__ = ["CalibrationSet", "FurtherText", "load_calibration"]
