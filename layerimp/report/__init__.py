"""Results of runs and grids: as data, as JSON, as tables and as a page."""

from layerimp.report.document import Results
from layerimp.report.results.models import Size

__all__ = ["Results", "Size"]
