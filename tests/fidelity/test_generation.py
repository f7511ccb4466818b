"""Continuations, against the usual greedy generation one prompt at a time, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import classifier, tiny
from transformers import GenerationConfig

import layerimp
from layerimp.errors import ModelError
from layerimp.fidelity.generation import (
    Prompt,
    compare_texts,
    continuations,
    end_tokens,
    loops,
    prompts,
    same_tokens,
)
from layerimp.fidelity.record import Generation
from layerimp.testing import batch, padded_batch, tiny_tokenizer

TEMPLATE = "{% for message in messages %}<s> he {{ message['content'] }} {% endfor %}she"


def by_hand(model: Any, prompt: Prompt, ends: set[int], new_tokens: int) -> tuple[int, ...]:
    """Append the most probable token again and again, without a cache."""
    ids = list(prompt.ids)
    for _ in range(new_tokens):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
    return tuple(ids[len(prompt.ids) :])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "bloom"])
def test_continuations_are_greedy_ones_made_by_hand(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    asked = [Prompt((1, 7, 30, 9), ""), Prompt((5, 6), "", chat=True), Prompt((3, 8, 60, 4), "")]
    asked.append(Prompt((9, 33, 71), "", chat=True))
    plain = [by_hand(model, prompt, set(), 12) for prompt in asked]
    ends = {plain[0][5], plain[3][1]}
    expected = [by_hand(model, prompt, ends, 12) for prompt in asked]
    assert any(len(each) < 12 for each in expected)
    assert continuations(layerimp.find_blocks(model), asked, ends, 12) == expected


@pytest.mark.parametrize("reads_padding", [True, False])
def test_prompts_of_several_lengths_run_together_if_the_model_reads_padding(reads_padding: bool) -> None:
    """The positions of gpt2 are added to its input, and are wrong in padded rows if it has to count them itself."""
    model, shapes = tiny("gpt2"), []
    generate = model.generate

    def noting(input_ids: torch.Tensor, **options: Any) -> Any:
        shapes.append(tuple(input_ids.shape))
        return generate(input_ids=input_ids, **options)

    model.generate = noting
    if not reads_padding:
        model.register_forward_pre_hook(
            lambda _model, given, inputs: (given, inputs | {"position_ids": None}), with_kwargs=True
        )
    asked = [Prompt((1, 7, 30, 9), ""), Prompt((5, 6), ""), Prompt((3, 8, 60, 4), ""), Prompt((9, 33), "")]
    continued = continuations(layerimp.find_blocks(model), asked, (), 12)
    assert continued == [by_hand(model, prompt, set(), 12) for prompt in asked]
    tried = [(1, 5), (2, 8)]
    assert shapes == [*tried, *([(4, 4)] if reads_padding else [(2, 2), (2, 4)])]


def test_a_model_s_own_settings_of_generation_do_not_matter_and_stay() -> None:
    model, asked = tiny(), [Prompt((1, 7, 30, 9), "")]
    stack = layerimp.find_blocks(model)
    expected = continuations(stack, asked, {2}, 12)
    own = GenerationConfig(do_sample=True, temperature=9.0, repetition_penalty=5.0, max_new_tokens=3, eos_token_id=11)
    model.generation_config = own
    model.train()
    assert continuations(stack, asked, {2}, 12) == expected
    assert model.generation_config is own
    assert model.training


def test_models_that_cannot_generate_say_so() -> None:
    with pytest.raises(ModelError, match="ForSequenceClassification does not generate text"):
        continuations(layerimp.find_blocks(classifier("gpt2")), [Prompt((1, 5), "")], ())


def test_a_failure_while_generating_is_told_in_a_line() -> None:
    model = tiny()
    model.generate = lambda **_: 1 / 0
    with pytest.raises(ModelError, match=r"LlamaForCausalLM cannot generate text: .*division by zero"):
        continuations(layerimp.find_blocks(model), [Prompt((1, 5), "")], ())


def test_prompts_are_cut_from_every_row_once_before_any_gives_another() -> None:
    text, tokenizer = padded_batch((64, 20, 33, 50)), tiny_tokenizer()
    text["input_ids"][:, 0] = 1
    text["input_ids"][:, 1:] = text["input_ids"][:, 1:].clamp(min=4) * text["attention_mask"][:, 1:]
    asked = prompts([text], tokenizer)
    rows = text["input_ids"].tolist()
    assert [prompt.ids for prompt in asked] == [tuple(rows[n][:33]) for n in (0, 2, 3)]
    assert asked[1].text == tokenizer.decode(rows[2][1:33])
    asked = prompts([{name: each[:, :33] for name, each in text.items()}, text], tokenizer, 4)
    assert [prompt.ids for prompt in asked] == [tuple(rows[n][:33]) for n in (0, 2, 3, 0)]


def test_a_prompt_lies_within_one_document() -> None:
    text, tokenizer = batch(1, 110), tiny_tokenizer()
    text["input_ids"].clamp_(min=4)
    text["input_ids"][0, [0, 30, 75]] = 1  # documents of 29, 44 and 34 tokens
    row = text["input_ids"][0].tolist()
    assert [prompt.ids for prompt in prompts([text], tokenizer)] == [(1, *row[31:63]), (1, *row[76:108])]


def test_a_third_of_the_prompts_are_in_the_chat_template() -> None:
    tokenizer = tiny_tokenizer()
    text = [batch(24, 40)]
    text[0]["input_ids"].clamp_(min=4)
    assert not any(prompt.chat for prompt in prompts(text, tokenizer))
    tokenizer.chat_template = TEMPLATE
    asked = prompts(text, tokenizer)
    assert [prompt.chat for prompt in asked] == [False] * 16 + [True] * 8
    own = text[0]["input_ids"][23, :32].tolist()
    he, she = tokenizer.convert_tokens_to_ids(["he", "she"])
    assert asked[23].ids == (1, he, *own, she)


def test_a_chat_template_that_fails_is_told_in_a_line() -> None:
    tokenizer, text = tiny_tokenizer(), [batch(24, 40)]
    text[0]["input_ids"].clamp_(min=4)
    tokenizer.chat_template = "{{ raise_exception('no user here') }}"
    with pytest.raises(ModelError, match=r"the tokenizer's chat template fails: .*no user here"):
        prompts(text, tokenizer)


def test_messages_of_one_length_are_preferred() -> None:
    """They run together; the template says more of every third message here."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }}"
        "{% if 'dog' in message['content'] %} yes{% endif %}{% endfor %}"
    )
    text = batch(60, 32)
    text["input_ids"].clamp_(min=20)
    text["input_ids"][::3, 5] = tokenizer.convert_tokens_to_ids("dog")
    asked = prompts([text], tokenizer)
    assert [len(prompt.ids) for prompt in asked] == [32] * 24
    assert [prompt.ids for prompt in asked[16:]] == [
        tuple(text["input_ids"][n].tolist()) for n in (16, 17, 19, 20, 22, 23, 25, 26)
    ]
    text["input_ids"] = text["input_ids"][:26]
    text["attention_mask"] = text["attention_mask"][:26]
    assert [len(prompt.ids) for prompt in prompts([text], tokenizer)[16:]] == [32] * 7 + [33]


def test_text_that_is_too_short_gives_no_prompt() -> None:
    assert prompts([batch(3, 12)], tiny_tokenizer()) == []


def test_every_token_that_ends_a_text_is_known() -> None:
    model = tiny()
    model.generation_config.eos_token_id = [7, 8]
    model.config.eos_token_id = 9
    assert end_tokens(model, tiny_tokenizer()) == {2, 7, 8, 9}


@pytest.mark.parametrize(
    ("intact", "own", "expected"),
    [((1, 2, 3), (1, 2, 4), 2), ((1, 2), (1, 2, 4), 2), ((), (1,), 0), ((), (), 64), ((5, 6), (5, 6), 64)],
)
def test_tokens_until_two_continuations_differ(intact: tuple[int, ...], own: tuple[int, ...], expected: int) -> None:
    assert same_tokens(intact, own) == same_tokens(own, intact) == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.lists(st.integers(0, 3), max_size=40))
def test_a_loop_has_a_period_of_at_most_16(period: list[int], before: list[int]) -> None:
    tail = (period * 40)[:32]
    shortest = next(n for n in range(1, 33) if all(tail[i] == tail[i + n] for i in range(32 - n)))
    assert loops((*before, *tail)) == (shortest <= 16)


def test_short_continuations_and_other_text_are_no_loops() -> None:
    assert not loops((4,) * 31)
    assert loops((4,) * 32)
    assert not loops(tuple(range(64)))
    assert not loops((*(4,) * 31, 5))


def test_what_is_said_of_continuations() -> None:
    tokenizer = tiny_tokenizer()
    asked = [Prompt((1, n), f"prompt {n}", chat=n == 3) for n in range(4)]
    intact = [(9, 8, 7), (9,) * 40, (5, 6), (7, 7)]
    own = [(9, 8, 5), (9,) * 40, (1, 2), (4,) * 33]
    generation = compare_texts(asked, intact, own, tokenizer)
    assert generation.same_tokens == (2 + 64 + 0 + 0) / 4
    assert (generation.empty, generation.loops) == (0.25, 0.5)  # the third has only special tokens
    assert (generation.intact_empty, generation.intact_loops) == (0.0, 0.25)
    assert [(sample.prompt, sample.chat) for sample in generation.samples] == [("prompt 0", False), ("prompt 3", True)]
    assert generation.samples[0].intact == tokenizer.decode([9, 8, 7])
    assert generation.samples[0].text == tokenizer.decode([9, 8, 5])
    assert generation.collapse == (
        "of the texts it generates, 25% are empty (0% of the intact model's) and 50% end in a loop (25% of the intact "
        "model's)"
    )


@pytest.mark.parametrize(("new_tokens", "expected"), [(31, None), (32, 0.5)])
def test_continuations_too_short_to_loop_are_not_counted(new_tokens: int, expected: float | None) -> None:
    asked = [Prompt((1, n), "") for n in range(4)]
    own = [(4,) * new_tokens, tuple(range(5, 5 + new_tokens))] * 2
    generation = compare_texts(asked, [own[1]] * 4, own, tiny_tokenizer(), new_tokens)
    assert generation.loops == expected
    assert generation.intact_loops == (None if expected is None else 0.0)
    assert bool(generation.collapse) == (expected is not None)


def test_a_model_that_loops_as_the_intact_one_has_not_collapsed() -> None:
    same = {"same_tokens": 3.0, "samples": []}
    assert Generation(empty=0.0, loops=0.9, intact_empty=0.1, intact_loops=0.7, **same).collapse is None
    assert Generation(empty=0.0, loops=0.9, intact_empty=0.0, intact_loops=0.5, **same).collapse == (
        "of the texts it generates, 90% end in a loop (50% of the intact model's)"
    )
