"""Rows of public benchmarks in their data sets' columns, written by hand, and a tiny model that reads any text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.lm_tasks import make_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Rows = list[dict[str, Any]]


def _choices(*texts: str, labels: str = "ABCDE") -> dict[str, list[str]]:
    return {"text": list(texts), "label": list(labels[: len(texts)])}


def _arc(question: str, answer: str, *texts: str, labels: str = "ABCDE") -> dict[str, Any]:
    return {"id": question[:4], "question": question, "choices": _choices(*texts, labels=labels), "answerKey": answer}


SCIENCE = [
    _arc("What do plants need to grow?", "B", "noise", "light", "money", "glass"),
    _arc("Which of these is a solid?", "3", "steam", "rain", "ice", labels="1234"),
    _arc("What pulls a ball to the ground?", "A", "gravity", "wind", "sound", "heat"),
]
ENDINGS = [
    {
        "ind": number,
        "activity_label": "Cooking",
        "ctx_a": "A man cuts an onion.",
        "ctx_b": "he",
        "endings": ["puts it into the pan.", "[title] flies away.", "reads  it a book.", "is an onion."],
        "label": str(number),
    }
    for number in range(3)
]
ROWS: dict[str, Rows] = {
    "hellaswag/validation": ENDINGS,
    "hellaswag/train": [{**row, "ctx_a": "A woman peels a pear."} for row in ENDINGS],
    "arc_easy/test": SCIENCE,
    "arc_challenge/test": SCIENCE[::-1],
    "winogrande/validation": [
        {"sentence": "The cup fell off the shelf because the _ was wet.", "option1": "cup", "option2": "shelf"}
        | {"answer": answer}
        for answer in "12"
    ],
    "boolq/validation": [
        {"passage": "Ice is frozen water.", "question": "is ice made of water", "label": 1},
        {"passage": "Ice is frozen water.", "question": "is ice made of sand", "label": 0},
        {"passage": "A cat sat on a mat.", "question": "did the cat sit", "label": 1},
    ],
    "lambada_openai/test": [{"text": "He threw the ball, and she caught the ball"}, {"text": "It was cold, so cold"}],
    "commonsense_qa/validation": [
        {"id": "a", "question": "Where does a fish live? ", "answerKey": "C"}
        | {"choices": _choices("a tree", "a shoe", "a lake", "a book", "a lamp")}
    ],
    "gsm8k/test": [{"question": "Ann has 2 pears and 3 figs. How many?", "answer": "2+3=<<2+3=5>>5\n#### 5"}],
    "gsm8k/train": [
        {"question": f"Bob has {number} pears and eats 1. How many?", "answer": f"{number}-1\n#### {number - 1}"}
        for number in range(2, 8)
    ],
    "piqa/validation": [{"goal": "To dry a cup", "sol1": "use a towel.", "sol2": "use a brick.", "label": 0}],
    "openbookqa/main/test": [
        {"id": "7", "question_stem": "The sun is", "choices": _choices("a star", "a fish", "a shoe", "a pan")}
        | {"answerKey": " A"}
    ],
}
"""By file below the data directory, without the end of its name."""


def paradigms() -> list[str]:
    """The configurations of BLiMP, as lm-eval names them."""
    from layerimp_harness.builtin import entries

    return sorted(name.removeprefix("blimp_") for name in entries(["blimp"]) if name.startswith("blimp_"))


def minimal_pairs(paradigm: str) -> Rows:
    """Two rows of one configuration of BLiMP."""
    return [
        {"sentence_good": f"The {noun} sleeps.", "sentence_bad": f"The {noun} sleep.", "UID": paradigm}
        for noun in ("cat", "dog")
    ]


def write_rows(directory: Path, place: str, rows: Rows) -> Path:
    """Write rows as JSON Lines; `place` has no end of its name."""
    path = directory / f"{place}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_all(directory: Path) -> Path:
    """Write a data directory with rows of every benchmark."""
    for place, rows in ROWS.items():
        write_rows(directory, place, rows)
    for paradigm in paradigms():
        write_rows(directory, f"blimp/{paradigm}", minimal_pairs(paradigm))
    return directory


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes, which can write every text."""
    letters = ["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<s>")


def byte_model() -> LlamaForCausalLM:
    """Return a tiny model for `byte_tokenizer`."""
    return make_model(vocab_size=257, max_position_embeddings=2048)
