"""The memory that models of known shapes take, whole and offloaded, as a table of Markdown.

    python benchmarks/memory_by_model.py

The figures are those of `layerimp inspect` and `--dry-run`, by arithmetic on the configurations; no weights are needed.
Memory in GiB, of weights in bfloat16. The hidden states are those of 16,384 tokens, the default amount of text, twice.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import LlamaConfig, MixtralConfig, PretrainedConfig

from layerimp.pipeline.outline import Outline

GROUPED = {"num_attention_heads": 32, "num_key_value_heads": 8}
SHAPES: dict[str, PretrainedConfig] = {}
TOKENS, BYTES = 16_384, 2


def llama(name: str, **shape: Any) -> None:
    SHAPES[name] = LlamaConfig(**shape)


llama(
    "Llama 3.2 1B",
    **GROUPED,
    num_hidden_layers=16,
    hidden_size=2048,
    intermediate_size=8192,
    vocab_size=128_256,
    tie_word_embeddings=True,
)
llama("Llama 2 7B", num_hidden_layers=32, hidden_size=4096, intermediate_size=11_008, vocab_size=32_000)
llama("Llama 3.1 8B", **GROUPED, num_hidden_layers=32, hidden_size=4096, intermediate_size=14_336, vocab_size=128_256)
llama(
    "Llama 2 13B",
    num_hidden_layers=40,
    hidden_size=5120,
    intermediate_size=13_824,
    num_attention_heads=40,
    vocab_size=32_000,
)
SHAPES["Mixtral 8x7B"] = MixtralConfig()
llama(
    "Llama 3.1 70B",
    num_hidden_layers=80,
    hidden_size=8192,
    intermediate_size=28_672,
    num_attention_heads=64,
    num_key_value_heads=8,
    vocab_size=128_256,
)


def main() -> None:
    """Print the table."""
    print("| model | parameters | whole | verified | offloaded | of these, the largest block | hidden states |")
    print("|---|---|---|---|---|---|---|")
    for name, config in SHAPES.items():
        config.architectures = [f"{type(config).__name__.removesuffix('Config')}ForCausalLM"]
        with tempfile.TemporaryDirectory() as directory:
            config.save_pretrained(directory)
            save_file({}, Path(directory) / "model.safetensors")  # a model directory has to hold such a file
            outline = Outline.of(directory)
        ledger, hidden = outline.ledger, 2 * TOKENS * config.hidden_size * BYTES
        whole = ledger.left(()).parameters
        sizes = [whole, 2 * whole, outline.held_if_offloaded(), ledger.largest_block.parameters]
        shown = " | ".join(f"{BYTES * size / 2**30:.1f}" for size in sizes)
        print(f"| {name} | {whole / 1e9:.1f} billion | {shown} | {hidden / 2**30:.1f} |")


if __name__ == "__main__":
    main()
