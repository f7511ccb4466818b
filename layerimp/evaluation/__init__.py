"""Evaluators at work on an intact model and on pruned ones."""
