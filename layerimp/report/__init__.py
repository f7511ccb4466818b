"""Results of runs and grids: as data, as JSON, as tables and as a page."""

from layerimp.report.data import Report, Size

__all__ = ["Report", "Size"]
