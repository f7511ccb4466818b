"""The text that drives scoring: read, drawn, packed into rows, and checked."""

from layerimp.calibration.sampling import CalibrationSet, load_calibration

__all__ = ["CalibrationSet", "load_calibration"]
