"""Texts to train a pruned model on, made of documents; see healing_texts.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from layerimp.fidelity import PROMPT_TOKENS, end_tokens

AT_ONCE = 32
"""The prompts that are continued together."""


@dataclass(frozen=True)
class Source:
    """What a training text is made of.

    Attributes:
        documents: The documents, in the order of the draw.
        model: The intact model.
        tokenizer: Its tokenizer.
        room: The tokens of a row, without special ones.
        seconds: How long the model may generate.
    """

    documents: Sequence[str]
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    room: int
    seconds: float

    def beginnings(self, size: int) -> Iterator[str]:
        """Yield the first tokens of each document that has so many."""
        for document in self.documents:
            ids = self.tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
            if len(ids) >= size:
                yield self.tokenizer.decode(ids[:size])

    def continued(self, texts: Iterator[str], *, special: bool) -> Iterator[tuple[str, list[int], list[int]]]:
        """Yield texts, their token ids, and those of a sampled continuation, as long as the time allows.

        Args:
            texts: The texts.
            special: Whether they begin with the special tokens that come before a text.
        """
        model, ends, end = self.model, end_tokens(self.model, self.tokenizer), time.monotonic() + self.seconds
        own, padding = model.generation_config, self.tokenizer.pad_token_id
        while time.monotonic() < end and (group := list(islice(texts, AT_ONCE))):
            rows = [_open(row, ends) for row in self.tokenizer(group, add_special_tokens=not special)["input_ids"]]
            longest = max(map(len, rows))
            lacking = [longest - len(row) for row in rows]
            filler = min(ends, default=0) if padding is None else padding
            ids = torch.tensor([[filler] * short + row for short, row in zip(lacking, rows, strict=True)])
            mask = (torch.arange(longest) >= torch.tensor(lacking)[:, None]).long()
            settings = {"eos_token_id": sorted(ends) or None, "pad_token_id": filler}
            model.generation_config = GenerationConfig(do_sample=True, top_k=0, **settings)
            try:
                new = model.generate(
                    input_ids=ids.to(model.device),
                    attention_mask=mask.to(model.device),
                    max_new_tokens=max(1, self.room - longest),
                )[:, longest:]
            finally:
                model.generation_config = own
            yield from zip(group, rows, new.tolist(), strict=True)

    def decoded(self, ids: list[int]) -> str:
        """Return a text without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def _open(row: list[int], ends: Collection[int]) -> list[int]:
    """Return a row without the tokens that end a text."""
    return row[:-1] if row[-1] in ends else row


def own(source: Source) -> Iterator[str]:
    """Yield beginnings of documents as the intact model continues them."""
    written = source.continued(source.beginnings(PROMPT_TOKENS), special=False)
    return (source.decoded(ids + new) for _, ids, new in written)


def chat(source: Source) -> Iterator[str]:
    """Yield conversations in the chat template: a message, and the intact model's answer."""
    template: Callable[..., str] = source.tokenizer.apply_chat_template
    messages = [{"role": "user", "content": text} for text in source.beginnings(PROMPT_TOKENS)]
    asked = {template([each], tokenize=False, add_generation_prompt=True): each for each in messages}
    for text, _, new in source.continued(iter(asked), special=True):
        yield template([asked[text], {"role": "assistant", "content": source.decoded(new)}], tokenize=False)


def plain(source: Source) -> Iterator[str]:
    """Yield the documents."""
    return iter(source.documents)


LONGER = "longer"
TEXTS = {**dict.fromkeys(("plain", LONGER, "mixed", "repeated"), plain), "own": own, "chat": chat}
OPTIONS: dict[str, dict[str, float]] = {
    **{name: {"repeated": 0.0} for name in TEXTS},
    "mixed": {},
    "repeated": {"repeated": 1.0},
}
"""The options of `distill` for each text."""
