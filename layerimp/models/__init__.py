"""Loading models, finding their blocks, and refusing unsupported models."""

from layerimp.models.dtypes import stored_bytes, stored_dtype
from layerimp.models.traits import cached_bytes, classifies, longest_row, special_ids

__all__ = ["cached_bytes", "classifies", "longest_row", "special_ids", "stored_bytes", "stored_dtype"]
