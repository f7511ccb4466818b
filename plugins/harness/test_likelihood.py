"""Log-likelihoods against lm-eval's own, and against bare forwards."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layerimp_harness.batches import Batches
from layerimp_harness.forest import Forest
from layerimp_harness.isolation import contained
from layerimp_harness.likelihood import Answers, Likelihoods
from layerimp_harness.rows import rows_of
from layerimp_harness.trees import Tree, trees_of
from lm_eval.models.huggingface import HFLM
from support.tiny import DECODERS, each_of, tiny
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from layerimp.blocks.snapshot import Snapshot
from layerimp.testing import VOCAB, tiny_tokenizer
from layerimp.testing.tiny import grown

LONGEST = 64

ORDINARY = {name: (name, {}) for name in DECODERS if name != "bloom"} | {
    "gemma3_text:window": (
        "gemma3_text",
        {"sliding_window": 8, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    ),
    "mistral:window": ("mistral", {"sliding_window": 8}),
}
"""Architectures that can be told which tokens attend to which, with and without a window shorter than the contexts."""

_STATES: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4},
    "falcon_mamba": {"state_size": 4},
    "recurrent_gemma": {"num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 16, "head_dim": 8},
    "lfm2": {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"] * 2},
    "jamba": {
        "num_key_value_heads": 2,
        "use_mamba_kernels": False,
        "mamba_d_state": 4,
        "num_experts": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
    },
}
"""Architectures with a state that a token leaves to the next."""


def stateful(name: str) -> PreTrainedModel:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "pad_token_id": 0}
    config = AutoConfig.for_model(name, **(sizes | {"num_attention_heads": 4} | _STATES[name]))
    return grown(AutoModelForCausalLM, config)


def questions(
    lengths: Sequence[int] = (9, 40, 23, 9, 31, 5), options: int = 4
) -> list[tuple[None, list[int], list[int]]]:
    """A few options of 1 to 7 tokens after each context, in random order; some of them begin another one."""
    rng = random.Random(0)
    requests = []
    for length in lengths:
        context = rng.choices(range(4, VOCAB), k=length)
        continuations = [rng.choices(range(4, VOCAB), k=rng.randint(1, 7)) for _ in range(options)]
        continuations.append([*continuations[0], 5])
        requests += [(None, context, continuation) for continuation in continuations]
    rng.shuffle(requests)
    return requests


def stock(model: PreTrainedModel, requests: list[Any], longest: int = LONGEST) -> list[tuple[float, bool]]:
    """What lm-eval's own class says."""
    with contained(0):
        theirs = HFLM(pretrained=model, tokenizer=tiny_tokenizer(), max_length=longest, batch_size=3)
        answers: list[tuple[float, bool]] = theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    return answers


class Noting(Likelihoods):
    """Notes, for each trial of trees, whether they gave the answers of whole rows."""

    trials: list[bool]

    def _tried(self, forest: Forest, trees: Sequence[Tree], greedy: bool) -> Answers | None:
        answers = super()._tried(forest, trees, greedy)
        self.trials.append(answers is not None)
        return answers


def ours(
    model: PreTrainedModel, requests: list[Any], *, rows: int = 3, longest: int = LONGEST, **options: bool
) -> tuple[list[tuple[float, bool]], list[bool]]:
    """What is said here, and the outcomes of the trials."""
    likelihoods = Noting(model, Batches(rows, model.device), max_length=longest, vocabulary=VOCAB)
    likelihoods.trials = []
    answers: dict[int, tuple[float, bool]] = {}

    def done(number: int, value: float, greedy: bool) -> None:
        assert number not in answers
        answers[number] = value, greedy

    likelihoods.answer(requests, done, **({"sharing": True, "greedy": True} | options))
    return [answers[number] for number in range(len(requests))], likelihoods.trials


def assert_equal(answers: list[tuple[float, bool]], expected: list[tuple[float, bool]]) -> None:
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in expected], rel=1e-4, abs=1e-4)
    assert [greedy for _, greedy in answers] == [greedy for _, greedy in expected]


def checked(model: PreTrainedModel, requests: list[Any], longest: int = LONGEST) -> list[bool]:
    """Compare what is said here with lm-eval's own class, and return the outcomes of the trials."""
    answers, trials = ours(model, requests, longest=longest)
    assert_equal(answers, stock(model, requests, longest))
    return trials


def direct(model: PreTrainedModel, request: tuple[None, list[int], list[int]]) -> float:
    """The log-likelihood from a bare forward over one request."""
    _, context, continuation = request
    with torch.no_grad():
        logs = model(torch.tensor([[*context, *continuation]])).logits[0].log_softmax(-1)
    return sum(float(logs[len(context) + i - 1, token]) for i, token in enumerate(continuation))


@contextmanager
def tokens_run(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """The shape of the ids of every forward of the blocks, also those that prove the head."""
    shapes: list[tuple[int, int]] = []
    embeddings: Any = model.get_input_embeddings()
    handle = embeddings.register_forward_pre_hook(lambda _module, args: shapes.append(tuple(args[0].shape)))
    yield shapes
    handle.remove()


# Values


@pytest.mark.parametrize("name", each_of(ORDINARY))
def test_shared_contexts_give_the_values_of_lm_eval(name: str) -> None:
    architecture, changes = ORDINARY[name]
    model, requests = tiny(architecture, **changes), questions()
    before = Snapshot.of(model)
    assert checked(model, requests) == [True]
    assert not before.changes(Snapshot.of(model))


@pytest.mark.parametrize("name", _STATES)
def test_a_model_in_which_every_token_leaves_a_state_is_run_without_trees(name: str) -> None:
    model, requests = stateful(name), questions()
    assert True not in checked(model, requests)


def test_positions_that_cannot_be_given_are_not_shared() -> None:
    model, requests = tiny("bloom"), questions()
    assert checked(model, requests) == []


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("sharing", [True, False])
def test_the_batch_changes_nothing(rows: int, sharing: bool) -> None:
    model, requests = tiny(), questions()
    with tokens_run(model) as shapes:
        answers, _ = ours(model, requests, rows=rows, sharing=sharing)
    assert_equal(answers, stock(model, requests))
    assert max(shape[0] for shape in shapes) <= rows


def test_double_precision_stays_double() -> None:
    model, requests = tiny(dtype=torch.float64), questions()
    answers, trials = ours(model, requests)
    assert trials == [True]
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in stock(model, requests)], rel=1e-6)
    for request, (value, _greedy) in zip(requests, answers, strict=True):
        assert value == pytest.approx(direct(model, request), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_near(dtype: torch.dtype) -> None:
    model, requests = tiny(dtype=dtype), questions()
    answers, _ = ours(model, requests)
    for (value, _), (expected, _), request in zip(answers, stock(model.float(), requests), requests, strict=True):
        assert value == pytest.approx(expected, abs=0.5 * len(request[2]))


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize("longest", [12, 41])
def test_contexts_that_are_too_long_lose_their_beginning(name: str, longest: int) -> None:
    model, requests = tiny(name), questions()
    checked(model, requests, longest)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neo"])
def test_padding_never_exceeds_the_positions_of_the_model(name: str) -> None:
    rng = random.Random(1)
    made = [rng.choices(range(4, VOCAB), k=length) for length in (60, 20, 58)]
    requests = [(None, context, rng.choices(range(4, VOCAB), k=64 - len(context))) for context in made for _ in "ab"]
    model = tiny(name)
    with tokens_run(model):
        checked(model, requests)


def test_windows_of_rolled_texts() -> None:
    rng = random.Random(2)
    requests = [(None, [1], rng.choices(range(4, VOCAB), k=length)) for length in (3, 30, 50, 17, 50)]
    model = tiny()
    answers, _ = ours(model, requests, sharing=False, greedy=False)
    assert [value for value, _ in answers] == pytest.approx([value for value, _ in stock(model, requests)], rel=1e-5)
    assert not any(greedy for _, greedy in answers)


# What is computed


def test_a_context_is_computed_once() -> None:
    model, requests = tiny(), questions(lengths=(40,) * 8)
    with tokens_run(model) as shapes:
        _, trials = ours(model, requests, rows=8)
    assert trials == [True]
    rows = rows_of(requests, LONGEST)
    tails = sum(len(row.tokens) - 40 for row in rows)
    trial, padding, proof = 2 * 47, 2 * 20, 2 * 8
    assert sum(count * length for count, length in shapes) < 8 * 40 + tails + trial + padding + proof
    assert sum(len(row.tokens) for row in rows) > 3 * 8 * 40


def test_a_tree_has_each_common_beginning_once() -> None:
    requests = [(None, [1, 2, 3], [4, 5, 9]), (None, [1, 2, 3], [4, 6, 9]), (None, [1, 2], [7, 9]), (None, [8], [9, 9])]
    trees = trees_of(rows_of(requests, LONGEST), LONGEST)
    assert [tree.tokens for tree in trees] == [[1, 2, 3, 4, 5, 6, 7], [8, 9]]
    assert trees[0].paths == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 5], [0, 1, 6]]
    assert trees[0].depth == 5


@settings(derandomize=True, max_examples=100, deadline=None, database=None)
@given(st.lists(st.lists(st.integers(1, 3), min_size=2, max_size=12), min_size=1, max_size=12))
def test_a_token_attends_to_those_before_it_in_its_rows(texts: list[list[int]]) -> None:
    for tree in trees_of(rows_of([(None, text[:1], text[1:]) for text in texts], LONGEST), LONGEST):
        beginnings: list[tuple[int, ...]] = [()] * len(tree.tokens)
        for row, path in zip(tree.rows, tree.paths, strict=True):
            for depth, place in enumerate(path):
                beginnings[place] = row.tokens[: depth + 1]
        assert [beginning[-1] for beginning in beginnings] == tree.tokens
        assert [len(beginning) - 1 for beginning in beginnings] == tree.depths().tolist()
        naive = [[beginning[: len(other)] == other for other in beginnings] for beginning in beginnings]
        assert naive == tree.attends().tolist()


def test_a_row_joins_a_tree_where_its_beginning_is_worth_more_than_the_attention() -> None:
    context = list(range(4, 14))
    requests = [(None, context, [ending] * 10) for ending in range(20, 30)]
    trees = trees_of(rows_of(requests, LONGEST), 1000)
    assert [len(tree.rows) for tree in trees] == [10]
    limited = trees_of(rows_of(requests, LONGEST), 30)
    assert [len(tree.rows) for tree in limited] == [2] * 5
    apart = [(None, [ending], [ending] * 10) for ending in range(20, 30)]
    assert [len(tree.rows) for tree in trees_of(rows_of(apart, LONGEST), 1000)] == [1] * 10
    long = [(None, [4], [ending] * 60) for ending in range(20, 23)]  # 59 x 60 pairs for a single token
    assert [len(tree.rows) for tree in trees_of(rows_of(long, LONGEST), 1000)] == [1] * 3


def test_options_of_one_token_need_one_row() -> None:
    context = list(range(4, 20))
    requests = [(None, context, [token]) for token in (5, 6, 7)]
    rows = rows_of(requests, LONGEST)
    assert [(row.tokens, len(row.readers)) for row in rows] == [(tuple(context), 3)]


def test_a_request_that_begins_another_one_is_answered_with_it() -> None:
    requests = [(None, [5, 6], [7]), (None, [5, 6], [7, 8, 9]), (None, [5], [6, 4]), (None, [5, 9], [9])]
    rows = rows_of(requests, LONGEST)
    assert [(row.tokens, row.start) for row in rows] == [((5, 6, 7, 8), 0), ((5, 9), 1)]
    # One by one: for the first of them lm-eval reads the logits where those of the last one begin.
    assert_equal(ours(tiny(), requests)[0], [stock(tiny(), [request])[0] for request in requests])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_only_logits_that_are_read_are_made(name: str) -> None:
    model, requests = tiny(name), questions(lengths=(20,) * 6, options=1)
    kept: list[int] = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _module, _args, output: kept.append(output.shape[1]))
    answers, _ = ours(model, requests, sharing=False)
    handle.remove()
    assert max(kept) <= 8 + 7  # a continuation, and the padding of the shortest row beside the longest in its batch
    assert_equal(answers, stock(model, requests))


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_tree_has_logits_where_a_token_is_predicted_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, requests = tiny(name), questions()
    monkeypatch.setattr("layerimp_harness.likelihood._PLACES", 3)
    monkeypatch.setattr("layerimp_harness.likelihood._LOGITS", 1)
    kept: list[int] = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda _module, args, output: kept.append(output.shape[1])
    )
    with tokens_run(model) as shapes:
        answers, trials = ours(model, requests)
    handle.remove()
    assert trials == [True]
    predicted = {(*context, *text[:n]) for _, context, text in requests for n in range(len(text))}
    trial, proof = 2 * 8, 2 * 8 + 1
    assert len(predicted) < sum(kept) <= len(predicted) + trial + proof < sum(rows * tokens for rows, tokens in shapes)
    assert_equal(answers, stock(model, requests))


def test_of_equally_probable_tokens_the_first_one_counts() -> None:
    model = tiny(tie_word_embeddings=False)
    head: Any = model.get_output_embeddings()
    with torch.no_grad():
        best = int(model(torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
        twin = (best + 1) % VOCAB
        head.weight[twin] = head.weight[best]
    requests = [(None, [5, 6, 7], [token]) for token in (best, twin)]
    answers, _ = ours(model, requests)
    assert [greedy for _, greedy in answers] == [best < twin, twin < best]
    assert_equal(answers, stock(model, requests))


# What fails


def fail(_output: Any) -> Any:
    raise ValueError("not in this model")


@pytest.mark.parametrize("change", [lambda logits: logits + torch.arange(VOCAB) * 1e-3, lambda _: _ * torch.nan, fail])
def test_a_model_that_answers_differently_in_a_tree_is_run_without(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    usual = Forest.run

    def run(forest: Forest, trees: Sequence[Tree]) -> Callable[[torch.Tensor], torch.Tensor]:
        logits_of = usual(forest, trees)
        return lambda places: change(logits_of(places))

    monkeypatch.setattr(Forest, "run", run)
    model, requests = tiny(), questions()
    assert checked(model, requests) == [False]


@pytest.mark.parametrize("lengths", [(30, 12, 9, 6), (9, 23, 5)])
@pytest.mark.parametrize("ignored", ["position_ids", "attention_mask"])
def test_a_model_that_does_not_heed_what_it_is_given_is_run_without(ignored: str, lengths: tuple[int, ...]) -> None:
    model = tiny("gpt2")
    backbone: Any = model.base_model
    real = backbone.forward

    def forward(
        input_ids: Any, attention_mask: Any = None, position_ids: Any = None, use_cache: Any = None, **_: Any
    ) -> Any:
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "use_cache": use_cache}
        return real(input_ids, **{name: value for name, value in given.items() if name != ignored})

    backbone.forward = forward
    assert checked(model, questions(lengths), 32) == [False]


def test_a_window_that_only_a_long_row_shows_is_noticed() -> None:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_layers": 4, "num_heads": 4, "eos_token_id": 0}
    local = {"attention_types": [[["global", "local"], 2]], "window_size": 16, "max_position_embeddings": LONGEST}
    model = grown(AutoModelForCausalLM, AutoConfig.for_model("gpt_neo", **sizes, **local))
    assert checked(model, questions()) == [False]


def test_a_model_that_takes_no_mask_is_run_without() -> None:
    model, requests = tiny(), questions()

    class Bare(torch.nn.Module):
        device, dtype = model.device, model.dtype

        def forward(self, input_ids: torch.Tensor) -> Any:
            return model(input_ids)

    answers, trials = ours(Bare(), requests)  # type: ignore[arg-type]
    assert trials == []
    assert_equal(answers, stock(model, requests))


@pytest.mark.parametrize("most", [1, 2, 5])
def test_memory_that_runs_out_on_trees_makes_smaller_batches(most: int) -> None:
    model, requests = tiny(), questions(lengths=(12,) * 8)

    def hook(_module: Any, args: Any) -> None:
        if len(args[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    embeddings: Any = model.get_input_embeddings()
    handle = embeddings.register_forward_pre_hook(hook)
    answers, trials = ours(model, requests, rows=8)
    handle.remove()
    assert trials == [True]
    assert_equal(answers, stock(model, requests))
