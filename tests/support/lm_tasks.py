"""Tasks for lm-eval in a folder, and a tiny model that answers them."""

from __future__ import annotations

import json
import random
import textwrap
from pathlib import Path

import torch
from layerimp_harness import Harness
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "good", "bad", "film", "was", "very", "so", "big", "red", "old"]
SPECIAL = ["<unk>", "<s>", "</s>"]
CONTEXT = 32


def make_tokenizer(*, words=WORDS, special=SPECIAL, **named) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0] if special else words[0]))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, **named)


def make_model(**changes) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.5,
    }
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).eval()


def documents(count=9):
    rng = random.Random(1)
    return [
        {"text": " ".join(rng.choices(WORDS, k=rng.randint(3, 9))), "label": rng.randint(0, 1)} for _ in range(count)
    ]


def write_docs(directory: Path, docs, name="docs.jsonl") -> Path:
    path = directory / name
    path.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    return path


def write_task(directory: Path, name: str, text: str, **changes: str) -> str:
    keys = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": "{data_files: {test: docs.jsonl}}",
        "test_split": "test",
        **changes,
    }
    path = directory / f"{name}.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in keys.items() if v) + textwrap.dedent(text))
    return str(path)


CHOICE = """
    output_type: multiple_choice
    doc_to_text: "{{text}}"
    doc_to_choice: [on the, good film]
    doc_to_target: label
    metric_list: [{metric: acc}, {metric: f1}]
"""
ROLLING = """
    output_type: loglikelihood_rolling
    doc_to_text: ""
    doc_to_target: "{{text}}"
    metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""
GENERATE = """
    output_type: generate_until
    doc_to_text: "{{text}}"
    doc_to_target: good
    generation_kwargs: {until: [cat], max_gen_toks: 4}
    metric_list: [{metric: exact_match}]
"""


def harness(folder: Path, *names: str, **options) -> Harness:
    specs = tuple(str(folder / f"{name}.yaml") for name in names)
    return Harness(Harness.Config(tasks=specs, **{"bootstrap": 50, **options}))


def named(metrics):
    return {(m.task, m.name): m for m in metrics}
