"""What pages call the models that several benchmarks measure, and how many blocks these have."""

from __future__ import annotations

TITLES = {
    "starter": "The starter",
    "minilm-sst2": "MiniLM on SST-2",
    "smollm2-135m": "SmolLM2-135M",
    "gemma-3-270m": "Gemma 3 270M",
}
"""The models, in the order of the pages."""
NUM_BLOCKS = {"starter": 12, "minilm-sst2": 6, "smollm2-135m": 30, "gemma-3-270m": 18}
DIRECTORIES = {"smollm2": "smollm2-135m", "gemma": "gemma-3-270m"}
"""The names of models whose directory is called otherwise."""
