"""Running scorers, in as few passes over the calibration set as possible."""
