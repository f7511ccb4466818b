"""Greedy continuations of the same prompts by two models: how long they are equal, and whether they are text at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, takewhile, zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from layerimp.blocks.equivalence import TOLERANCE, deviation
from layerimp.blocks.modes import in_eval_mode, quiet
from layerimp.blocks.stack import probe_ids
from layerimp.errors import LayerimpError, ModelError, one_line
from layerimp.fidelity.record import Generation, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from layerimp.blocks.stack import Batch, BlockStack

PROMPTS, CHAT_PROMPTS = 24, 8
"""How many prompts there are, and how many of them are in the chat template if the tokenizer has one."""
PROMPT_TOKENS = 32
"""The tokens of a prompt, without the template of a message."""
NEW_TOKENS = 64
CHOICE = 4
"""So many times as many messages as needed are looked at."""
LOOP_TOKENS, LOOP_PERIOD = 32, 16
"""A continuation loops if its last tokens repeat with at most this period."""
ALIKE = 1e-3
"""Padding that is read wrongly changes the logits by much more than this share of the largest one, rounding in float32
by much less."""

Continuation = tuple[int, ...]
"""The token ids of a continuation, without the token that ends it."""


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text.

    Attributes:
        ids: The token ids that the model gets.
        text: The text, without special tokens.
        chat: Whether the text is a message in the tokenizer's chat template.
    """

    ids: tuple[int, ...]
    text: str
    chat: bool = False


def prompts(batches: Iterable[Batch], tokenizer: PreTrainedTokenizerBase, count: int = PROMPTS) -> list[Prompt]:
    """Cut prompts from text: from every row once before any row gives another one.

    A prompt lies within one document, as far as special tokens tell where a document ends. The last `CHAT_PROMPTS` of
    `PROMPTS`, and of another number the same share, are in the tokenizer's chat template if it has one; messages that
    give prompts of the same length are preferred. There are fewer prompts if the text is too short.

    Args:
        batches: Batches of text.
        tokenizer: The tokenizer of the text.
        count: The number of prompts.

    Raises:
        ModelError: the chat template fails.
    """
    by_row = [
        _pieces(ids[mask], tokenizer)
        for batch in batches
        for ids, mask in zip(batch["input_ids"].cpu(), batch["attention_mask"].bool().cpu(), strict=True)
    ]
    pieces = [piece for in_turn in zip_longest(*by_row) for piece in in_turn if piece is not None]
    chats = min(count, len(pieces)) * CHAT_PROMPTS // PROMPTS if tokenizer.chat_template else 0
    plain = pieces[: min(count, len(pieces)) - chats]
    return plain + _messages(pieces[len(plain) :], tokenizer, chats)


def _pieces(row: Tensor, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """Cut the documents of a row [token] into prompts, each after the special tokens that the row begins with."""
    ids: list[int] = row.tolist()
    special = frozenset(tokenizer.all_special_ids)
    begins = list(takewhile(special.__contains__, ids))
    runs = [list(run) for is_special, run in groupby(ids, special.__contains__) if not is_special]
    cuts = [run[start : start + PROMPT_TOKENS] for run in runs for start in range(0, len(run), PROMPT_TOKENS)]
    return [Prompt((*begins, *cut), str(tokenizer.decode(cut))) for cut in cuts if len(cut) == PROMPT_TOKENS]


def _messages(pieces: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, count: int) -> list[Prompt]:
    """Make prompts for a chat model of the first of these pieces, preferably of one length: they run together."""
    messages = [_message(piece.text, tokenizer) for piece in pieces[: CHOICE * count]]
    lengths = Counter(len(prompt.ids) for prompt in messages)
    return sorted(messages, key=lambda prompt: lengths[len(prompt.ids)] < max(lengths.values()))[:count]


def _message(text: str, tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """Make a prompt of a message to a chat model."""
    message = [{"role": "user", "content": text}]
    try:
        written = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise ModelError(f"the tokenizer's chat template fails: {one_line(error)}") from error
    return Prompt(tuple(tokenizer(written, add_special_tokens=False)["input_ids"]), text, chat=True)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of the tokens that end a text of a model."""
    ids: list[Any] = [tokenizer.eos_token_id]
    for config in (model.generation_config, model.config.get_text_config()):
        own = getattr(config, "eos_token_id", None)
        ids += own if isinstance(own, list) else [own]
    return frozenset(number for number in ids if isinstance(number, int))


def continuations(
    stack: BlockStack, prompts: Sequence[Prompt], ends: Collection[int], new_tokens: int = NEW_TOKENS
) -> list[Continuation]:
    """Continue prompts greedily: the most probable token each time, without penalties.

    All prompts run together, padded on the left, if the model reads such rows correctly, as most architectures do; else
    prompts of the same length.

    Args:
        stack: The blocks of the model.
        prompts: The prompts.
        ends: The ids of the tokens that end a continuation.
        new_tokens: The most tokens of a continuation.

    Returns:
        The continuations, in the order of the prompts.

    Raises:
        ModelError: the model cannot generate.
    """
    if not stack.model.can_generate():
        raise ModelError(f"{type(stack.model).__name__} does not generate text")
    lengths = [len(prompt.ids) for prompt in prompts]
    written: dict[int, Continuation] = {}
    with torch.inference_mode(), in_eval_mode(stack.model), quiet():
        if len(set(lengths)) > 1 and _reads_padding(stack):
            lengths = [max(lengths)] * len(prompts)
        with greedily(stack.model, ends, new_tokens):
            for length in sorted(set(lengths)):
                chosen = [number for number, own in enumerate(lengths) if own == length]
                new = _generated(stack, [prompts[number].ids for number in chosen])[:, length:].tolist()
                texts = (tuple(takewhile(lambda token: token not in ends, row)) for row in new)
                written |= zip(chosen, texts, strict=True)
    return [written[number] for number in range(len(prompts))]


def _reads_padding(stack: BlockStack) -> bool:
    """Whether a model that generates gives the same logits for a row alone and padded on the left, on a few tokens."""
    row = probe_ids(stack)[0].tolist()
    with greedily(stack.model, (), 2):
        kept = {"output_logits": True, "return_dict_in_generate": True}
        alone, padded = (_generated(stack, rows, **kept).logits for rows in ([row[3:]], [row, row[3:]]))
    dtype, pairs = stack.model.dtype, zip(alone, padded, strict=True)
    most = max(TOLERANCE, ALIKE / torch.finfo(dtype).eps)
    return all(deviation(own[0], beside[-1], dtype) <= most for own, beside in pairs)


def _generated(stack: BlockStack, rows: Sequence[Sequence[int]], **options: bool) -> Any:
    """Return rows of tokens, padded on the left, with what a model generates after them [row, token]."""
    model: Any = stack.model
    missing = [max(map(len, rows)) - len(row) for row in rows]
    ids = torch.tensor([[0] * short + list(row) for row, short in zip(rows, missing, strict=True)], device=stack.device)
    mask = (torch.arange(ids.shape[1])[None] >= torch.tensor(missing)[:, None]).long().to(stack.device)
    try:
        return model.generate(input_ids=ids, attention_mask=mask, **options)
    except (LayerimpError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{type(model).__name__} cannot generate text: {one_line(error)}") from error


@contextmanager
def greedily(model: PreTrainedModel, ends: Collection[int], new_tokens: int) -> Iterator[None]:
    """A context in which a model generates greedily, whatever its own settings of generation are."""
    own = model.generation_config
    padding = min(ends, default=0)
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=new_tokens, eos_token_id=sorted(ends) or None, pad_token_id=padding
    )
    try:
        yield
    finally:
        model.generation_config = own


def same_tokens(intact: Continuation, own: Continuation, new_tokens: int = NEW_TOKENS) -> int:
    """Return the number of tokens until two continuations differ; `new_tokens` if they do not."""
    if intact == own:
        return new_tokens
    differ = (place for place, pair in enumerate(zip(intact, own, strict=False)) if pair[0] != pair[1])
    return next(differ, min(len(intact), len(own)))


def loops(continuation: Continuation) -> bool:
    """Whether the last 32 tokens of a continuation repeat with a period of at most 16."""
    last = continuation[-LOOP_TOKENS:]
    if len(last) < LOOP_TOKENS:
        return False
    return any(last[period:] == last[:-period] for period in range(1, LOOP_PERIOD + 1))


def compare_texts(
    prompts: Sequence[Prompt],
    intact: Sequence[Continuation],
    own: Sequence[Continuation],
    tokenizer: PreTrainedTokenizerBase,
    new_tokens: int = NEW_TOKENS,
) -> Generation:
    """Compare the continuations of two models, prompt by prompt.

    Two continuations are shown, and so few are not counted. Too few tokens cannot loop, and are not counted as such.
    """
    texts = [[str(tokenizer.decode(list(each), skip_special_tokens=True)) for each in model] for model in (intact, own)]
    shown = dict.fromkeys([0, next((n for n, prompt in enumerate(prompts) if prompt.chat), min(1, len(prompts) - 1))])
    samples = [
        Sample(prompt=prompts[n].text, chat=prompts[n].chat, intact=texts[0][n], text=texts[1][n]) for n in shown
    ]
    if len(samples) == len(prompts):
        return Generation(prompts=len(prompts), samples=samples)
    empty = [sum(not text.strip() for text in model) / len(prompts) for model in texts]
    long = new_tokens >= LOOP_TOKENS
    looping = [sum(map(loops, model)) / len(prompts) if long else None for model in (intact, own)]
    equal = [same_tokens(*pair, new_tokens) for pair in zip(intact, own, strict=True)]
    return Generation(
        same_tokens=sum(equal) / len(equal),
        empty=empty[1],
        loops=looping[1],
        prompts=len(prompts),
        intact_empty=empty[0],
        intact_loops=looping[0],
        samples=samples,
    )
