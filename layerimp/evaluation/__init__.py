"""Running evaluators on an intact model and on pruned models."""
