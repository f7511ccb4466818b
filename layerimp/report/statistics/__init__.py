"""Means and intervals, paired comparisons of models, what is retained, and what may be removed."""
