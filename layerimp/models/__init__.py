"""Loading models, finding their blocks, and refusing unsupported models."""

from layerimp.models.dtypes import stored_bytes, stored_dtype
from layerimp.models.traits import cached_bytes, classifies, longest_row

__all__ = ["cached_bytes", "classifies", "longest_row", "stored_bytes", "stored_dtype"]
