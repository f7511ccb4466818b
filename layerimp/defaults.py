"""What the core takes where nothing is named: labels, defaults, and the names of plugins that it mentions."""

ORIGINAL = "original"
"""The label of the intact model in results."""
ALL = "all"
"""What stands for every installed scorer."""

STARTER = "starter"
"""The model, and its calibration text, that everything runs on by default."""
PROSE = "prose"
"""The calibration text for all other models."""
STARTER_TASKS = ("starter_stories", "starter_sentiment", "starter_qa")
"""One task per family of the AVSS paper: language modelling, sentiment, question answering. They need no network."""

SCORER = "avss"
PRUNER = "lowest"
HEALER = "linear"
HARNESS = "harness"
"""The evaluator that reads tasks."""
FOOTPRINT = "footprint"
"""The evaluator that measures a latency."""
EVALUATORS = (HARNESS, FOOTPRINT)
RANDOM = "random"
"""The scorer that a metric has to beat to have shown anything."""
BASELINES = (RANDOM, "depth")
"""The scorers that a run evaluates beside those that were asked for."""
PAPER_SCORERS = ("gbis", "lrp", "cim", SCORER)
"""The scorers of the AVSS paper, in the order of its table."""
GRID_BASELINES = (*BASELINES, "block-influence")

RATIO = 0.25
"""The share of the blocks that is removed."""
LENGTH = 256
"""Tokens in a row of calibration text, where the model takes as many."""
