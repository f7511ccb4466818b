"""Labels, defaults, and the names of plugins' components that the core mentions."""

from collections.abc import Mapping
from typing import Any

ORIGINAL = "original"
"""The label of the intact model in results."""
ALL = "all"
"""The name that stands for every installed scorer."""

STARTER = "starter"
"""The default model, and the name of its calibration text."""
PROSE = "prose"
"""The calibration text for all other models."""
STARTER_TASKS = ("starter_stories", "starter_sentiment", "starter_qa")
"""One task per family of the AVSS paper: language modelling, sentiment, question answering. They need no network."""

HUB = "hub"
"""The name of a text that is fetched only when it is asked for: `HUB_TEXT`."""
HUB_TEXT = "HuggingFaceFW/fineweb-edu@87f09149ef4734204d70ed1d046ddc9ca3f2b8f9:sample-10BT:train"
HUB_LICENCE = "ODC-By 1.0, and the terms of use of Common Crawl"

BEST, FAST = "best", "fast"
"""The names that stand for the recommended method, and for the best scorer that reads a text once."""
RECOMMENDED: Mapping[str, Any] = {
    "scorers": {"divergence": {"name": "divergence", "options": {}}},
    "pruner": {"name": "greedy", "options": {"rescored": 3}},
    "healers": {"linear": {"name": "linear", "options": {}}},
}
"""The recommended method, as fields of a recipe: what scores, prunes and heals where a recipe names no scorer."""
SCORERS = {BEST: "divergence", FAST: "block-influence"}
"""The scorers that the two names stand for."""
PRUNER = "lowest"
HEALER = "linear"
TRAINER = "distill"
"""The healer that trains."""
TRAINING_TOKENS = 2_000_000
"""How many tokens `layerimp shrink` trains on if there is further text; a token counts each time it is read. It is a
bound for fast machines, and not measured: on a CPU core the minutes end a training after a fifth of it."""
SHIPPED_TRAINING_TOKENS = 60_000
"""The same without further text: what ships is soon read several times, which is worth less each time (Muennighoff et
al. 2023, arXiv:2305.16264)."""
TRAINING_MINUTES: Mapping[str, float] = {"cpu": 30.0}
"""How long it trains at most, by the type of device."""
TRAINING_MINUTES_ELSEWHERE = 120.0
POOR: Mapping[str, float] = {"divergence": 1.0, "agreement": 0.6, "labels": 0.5, "copying": 0.75, "retained": 0.5}
"""The limits beyond which a smaller model is called poor: a divergence above so many nats; and below these an
agreement, that of a classifier's labels beyond its most frequent one, a share of the intact model's copying where that
is no chance, or of what it knows in the tasks."""
COPIES = 0.2
"""An intact model that copies less than this share is not held to its copying."""
COLLAPSE = 0.25
"""So much greater a share of continuations that are empty or loop is a collapse, which makes a model poor."""
HARNESS = "harness"
"""The evaluator that reads tasks."""
FOOTPRINT = "footprint"
"""The evaluator that measures a latency."""
FIDELITY = "fidelity"
"""The evaluator that measures how far a model is from the intact one."""
EVALUATORS = (HARNESS, FOOTPRINT, FIDELITY)
RANDOM = "random"
"""The scorer that a useful metric has to beat."""
BASELINES = (RANDOM, "depth")
"""The scorers that a run evaluates beside the requested ones."""
PAPER_SCORERS = ("gbis", "lrp", "cim", "avss")
"""The scorers of the AVSS paper, in the order of its table."""
GRID_BASELINES = (*BASELINES, "block-influence")

RATIO = 0.25
"""The share of the blocks that is removed."""
HEALING_ROWS = 3
"""The least rows of text to heal on: one to fit, one to choose by, and one to measure on."""
ROWS = 64
"""The number of rows of calibration text."""
LENGTH = 256
"""The number of tokens in a row of calibration text, unless the model's limit is lower."""
BATCH_SIZE = 8
"""The number of rows that a model reads at a time."""
SHARD_SIZE = "5GB"
"""The largest file of a checkpoint's weights."""
