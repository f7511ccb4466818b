from __future__ import annotations

import json
import logging
import math
import random
import socket
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layerimp_harness import Harness, floors, guard, layerimp_evaluators, tasks
from layerimp_harness.isolation import contained
from layerimp_harness.metrics import Saturating, standard_error
from layerimp_harness.tokens import TokenMemory
from lm_eval.api import metrics as lm_metrics
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from layerimp.errors import ModelError, NonFiniteError, TaskError, UnknownNameError
from layerimp.evaluator import unigram
from layerimp.report.retained import counting

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "good", "bad", "film", "was", "very", "so", "big", "red", "old"]
SPECIAL = ["<unk>", "<s>", "</s>"]
CONTEXT = 32


@pytest.fixture(autouse=True)
def closed(monkeypatch, tmp_path):
    """No network, and a data set cache of the test's own."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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


@pytest.fixture
def tokenizer():
    return make_tokenizer(unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture
def model():
    return make_model()


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


@pytest.fixture
def folder(tmp_path):
    write_docs(tmp_path, documents())
    write_task(tmp_path, "choice", CHOICE)
    write_task(tmp_path, "rolling", ROLLING)
    write_task(tmp_path, "generate", GENERATE)
    return tmp_path


def harness(folder: Path, *names: str, **options) -> Harness:
    specs = tuple(str(folder / f"{name}.yaml") for name in names)
    return Harness(Harness.Config(tasks=specs, **{"bootstrap": 50, **options}))


def named(metrics):
    return {(m.task, m.name): m for m in metrics}


def log_probability(model, context: list[int], continuation: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *continuation]])).logits[0].double()
    scores = logits.log_softmax(-1)
    return sum(float(scores[len(context) + i - 1, token]) for i, token in enumerate(continuation))


# ---- values


def test_hook_and_cheap_import():
    assert layerimp_evaluators() == [Harness]
    code = "import sys, layerimp_harness; assert not {'torch', 'lm_eval', 'datasets'} & set(sys.modules)"
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def direct_accuracy(model, tokenizer, docs, shots=lambda doc: ""):
    right = []
    for doc in docs:
        context = tokenizer.encode(shots(doc) + doc["text"])
        scores = [log_probability(model, context, tokenizer.encode(c)) for c in ("on the", "good film")]
        right.append(float(scores.index(max(scores)) == doc["label"]))
    return right


def test_accuracy_equals_a_direct_computation(folder, model, tokenizer):
    right = direct_accuracy(model, tokenizer, documents())
    found = named(harness(folder, "choice").evaluate(model, tokenizer))
    mean = sum(right) / len(right)
    spread = sum((x - mean) ** 2 for x in right) / (len(right) - 1)
    assert 0 < mean < 1
    assert found["choice", "acc"].value == pytest.approx(mean)
    assert found["choice", "acc"].stderr == pytest.approx(math.sqrt(spread / len(right)))
    assert found["choice", "f1"].stderr > 0
    assert found["choice", "acc"].higher_is_better


def test_values_are_those_of_lm_eval_alone(folder, model, tokenizer):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    one = harness(folder, "choice", "rolling", "generate", max_length=12)
    found = one.evaluate(model, tokenizer)
    with contained(0):
        stock = HFLM(pretrained=model, tokenizer=tokenizer, max_length=12)
        results = evaluate(lm=stock, task_dict={"tasks": one._loaded.tasks}, bootstrap_iters=0)["results"]
    assert [m.value for m in found] == pytest.approx([results[m.task][f"{m.name},none"] for m in found], rel=1e-5)


def direct_rolling(model, tokenizer, text, window):
    tokens = tokenizer.encode(text)
    total = 0.0
    for start in range(0, len(tokens), window):
        part = tokens[start : start + window]
        if start == 0:
            context = [tokenizer.bos_token_id]
        else:  # lm-eval fills the last window up with what comes before
            room = window + 1 - len(part)
            context = tokens[max(0, start - room) : start]
        total += log_probability(model, context, part)
    return total


@pytest.mark.parametrize("window", [CONTEXT, 4])
def test_perplexity_equals_a_direct_computation(folder, model, tokenizer, window):
    docs = documents()
    values = [direct_rolling(model, tokenizer, doc["text"], window) for doc in docs]
    words = sum(len(doc["text"].split()) for doc in docs)
    size = sum(len(doc["text"].encode()) for doc in docs)
    found = named(harness(folder, "rolling", max_length=window).evaluate(model, tokenizer))
    assert found["rolling", "word_perplexity"].value == pytest.approx(math.exp(-sum(values) / words), rel=1e-5)
    assert found["rolling", "byte_perplexity"].value == pytest.approx(math.exp(-sum(values) / size), rel=1e-5)
    bits = found["rolling", "bits_per_byte"]
    assert bits.value == pytest.approx(-sum(values) / size / math.log(2), rel=1e-5)
    assert not bits.higher_is_better
    assert bits.stderr > 0


def test_few_shot_examples_come_first(folder, model, tokenizer):
    write_docs(folder, [{"text": "the dog", "label": 1}], "shots.jsonl")
    write_task(
        folder,
        "shot",
        CHOICE,
        dataset_kwargs="{data_files: {test: docs.jsonl, train: shots.jsonl}}",
        training_split="train",
    )
    found = harness(folder, "shot", num_fewshot=1).evaluate(model, tokenizer)
    right = direct_accuracy(model, tokenizer, documents(), lambda doc: "the dog good film\n\n")
    assert found[0].value == pytest.approx(sum(right) / len(right))


def test_a_task_that_sets_no_shots_keeps_none(folder, model, tokenizer):
    write_task(folder, "zero", CHOICE, num_fewshot="0")
    shots = harness(folder, "zero", num_fewshot=3)
    shots.prepare()
    assert shots._loaded.tasks["zero"].get_config("num_fewshot") == 0


def test_limit_takes_the_first_documents(folder, model, tokenizer):
    right = direct_accuracy(model, tokenizer, documents()[:3])
    found = harness(folder, "choice", limit=3).evaluate(model, tokenizer)
    assert found[0].value == pytest.approx(sum(right) / 3)


def test_one_document_has_no_error(folder, model, tokenizer):
    assert {m.stderr for m in harness(folder, "choice", "rolling", limit=1).evaluate(model, tokenizer)} == {None}


def test_twice_the_same_and_another_model_another(folder, tokenizer):
    one = harness(folder, "choice", "rolling", "generate")
    first = one.evaluate(make_model(), tokenizer)
    changed = make_model()
    changed.model.layers = changed.model.layers[:1]
    changed.config.num_hidden_layers = 1
    pruned = one.evaluate(changed, tokenizer)
    assert one.evaluate(make_model(), tokenizer) == first
    assert pruned != first
    assert harness(folder, "choice", "rolling", "generate").evaluate(changed, tokenizer) == pruned


def test_batches_change_nothing(folder, model, tokenizer):
    one, many = (harness(folder, "choice", "rolling", batch_size=n).evaluate(model, tokenizer) for n in (1, 8))
    assert [m.value for m in many] == pytest.approx([m.value for m in one], rel=1e-5)


def test_generation(folder, model, tokenizer):
    with torch.no_grad():
        ids = model.generate(
            torch.tensor([tokenizer.encode(documents()[0]["text"])]), max_new_tokens=1, do_sample=False, pad_token_id=0
        )
    word = tokenizer.decode(ids[0, -1:])
    write_task(folder, "write", GENERATE.replace("good", word).replace("4", "1"))
    assert harness(folder, "write", limit=1).evaluate(model, tokenizer)[0].value == 1
    assert harness(folder, "generate").evaluate(model, tokenizer)[0].name == "exact_match"


def test_several_filters(folder, model, tokenizer):
    filters = """
        filter_list:
          - {name: raw, filter: [{function: take_first}]}
          - {name: upper, filter: [{function: uppercase}, {function: take_first}]}
    """
    write_task(folder, "filtered", textwrap.dedent(GENERATE) + textwrap.dedent(filters))
    names = [m.name for m in harness(folder, "filtered").evaluate(model, tokenizer)]
    assert names == ["exact_match", "exact_match[upper]"]


def test_group_with_neighbours_and_its_own_aggregate(folder, model, tokenizer):
    (folder / "both.yaml").write_text(
        "group: both\ntask: [choice, {task: inline, " + "dataset_path: json, dataset_kwargs: {data_files: {test: "
        "docs.jsonl}}, test_split: test, output_type: multiple_choice, doc_to_text: '{{text}}', doc_to_choice: "
        "[cat, dog], doc_to_target: label, metric_list: [{metric: acc}]}]\naggregate_metric_list: [{metric: acc}]\n"
    )
    found = named(harness(folder, "both").evaluate(model, tokenizer))
    leaves = [found["choice", "acc"], found["both::inline", "acc"]]
    assert found["both", "acc"].value == pytest.approx(sum(m.value for m in leaves) / 2)
    assert found["both", "acc"].stderr > 0


def test_tag_and_name_from_the_task_path(folder, model, tokenizer, monkeypatch):
    monkeypatch.setattr(tasks, "whole_index", lambda: pytest.fail("the whole index was read"))
    write_task(folder, "tagged", CHOICE, tag="mine")
    for name in ("choice", "mine"):
        one = Harness(Harness.Config(tasks=(name,), task_path=folder))
        assert one.evaluate(model, tokenizer)[0].name == "acc"


def test_no_tasks_no_metrics(model, tokenizer):
    assert Harness().evaluate(model, tokenizer) == []


# ---- numbers that break


def test_overflow_is_infinite_and_nan_an_error(folder, tokenizer):
    broken = make_model()
    with torch.no_grad():
        broken.lm_head.weight *= 1e6
    found = named(harness(folder, "rolling").evaluate(broken, tokenizer))
    assert found["rolling", "word_perplexity"].value == found["rolling", "word_perplexity"].stderr == math.inf
    with torch.no_grad():
        broken.lm_head.weight.fill_(math.nan)
    with pytest.raises(NonFiniteError, match="'choice'"):
        harness(folder, "choice").evaluate(broken, tokenizer)


@pytest.mark.parametrize("name", ["weighted_perplexity", "bits_per_byte", "weighted_mean", "perplexity", "median"])
def test_errors_are_those_of_many_draws(name):
    rng = np.random.default_rng(0)
    values, units = rng.normal(-30, 1, 400), rng.integers(5, 15, 400)
    pairs = [(float(v * u / 10), int(u)) for v, u in zip(values, units, strict=True)]
    items = pairs if name not in ("perplexity", "median") else (values / 10).tolist()
    aggregation = getattr(lm_metrics, name)
    draws = [standard_error(Saturating(aggregation), items, draws=400, rng=np.random.default_rng(i)) for i in (1, 1, 2)]
    slow = np.std([float(aggregation([items[i] for i in rng.integers(400, size=400)])) for _ in range(400)], ddof=1)
    assert draws[0] == draws[1]
    assert (draws[0] != draws[2]) is (name == "median")  # the others have a closed form
    assert draws[0] == pytest.approx(slow, rel=0.25 if name == "median" else 0.1)


# ---- what is kept for comparisons


def test_the_metrics_follow_from_what_is_kept_of_the_documents(folder, model, tokenizer):
    found = named(harness(folder, "choice", "rolling", "generate").evaluate(model, tokenizer))
    for metric in found.values():
        if metric.name == "f1":  # of the whole corpus
            assert metric.documents is metric.likelihood is metric.count is None
        elif metric.likelihood is None:
            assert metric.value == pytest.approx(sum(metric.documents) / metric.count)
        else:
            assert metric.value == pytest.approx(metric.likelihood.metric(metric.likelihood.loss))
    kept = [metric.likelihood for (task, _), metric in found.items() if task == "rolling"]
    assert len({one.totals for one in kept}) == len({one.unigram for one in kept}) == 1
    assert len({one.units for one in kept}) == 2  # words, and bytes twice
    assert found["choice", "acc"].floor == 0.5
    assert found["generate", "exact_match"].floor == 0.0


def test_equal_documents_have_equal_hashes_whatever_is_asked_of_them(folder, model, tokenizer):
    lines = (folder / "docs.jsonl").read_text().splitlines()
    (folder / "docs.jsonl").write_text("\n".join([*lines, lines[0]]))
    found = named(harness(folder, "choice", "rolling").evaluate(model, tokenizer))
    kept = {metric.hashes for metric in found.values()}
    assert len(kept) == 1
    (hashes,) = kept
    assert hashes[-1] == hashes[0]
    assert len(set(hashes)) == len(set(lines))
    assert all(0 <= each < 2**48 for each in hashes)
    fewer = named(harness(folder, "choice", limit=2).evaluate(model, tokenizer))
    assert fewer["choice", "acc"].hashes == hashes[:2]


def naive_unigram(documents, vocabulary, share):
    totals = []
    for tokens in documents:
        others = [token for each in documents if each != tokens for token in each]
        chances = [(1 - share) * others.count(token) / max(len(others), 1) + share / vocabulary for token in tokens]
        totals.append(sum(map(math.log, chances)))
    return totals


@settings(derandomize=True, max_examples=30, deadline=None, database=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=5))
def test_the_unigram_model_leaves_out_its_document_and_has_the_best_share(documents):
    found = sum(unigram(documents, 9))
    shares = [step / 500 for step in range(1, 501)]
    naive = max(sum(naive_unigram(documents, 9, share)) for share in shares)
    assert found == pytest.approx(naive, abs=0.05)
    assert found >= naive - 1e-3


def test_tokens_are_those_that_the_model_predicts(folder, model, tokenizer):
    found = named(harness(folder, "rolling").evaluate(model, tokenizer))["rolling", "word_perplexity"].likelihood
    texts = [json.loads(line)["text"] for line in (folder / "docs.jsonl").read_text().splitlines()]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert found.unigram == unigram(tokens, model.get_input_embeddings().num_embeddings)


def floor_of(metric, samples, *, kind="multiple_choice", own=None):
    task = SimpleNamespace(OUTPUT_TYPE=kind, config=SimpleNamespace(process_results=own))
    return floors.chance(task, metric, samples, {"f1": lm_metrics.f1_score}.get(metric, lm_metrics.matthews_corrcoef))


@pytest.mark.parametrize(
    ("kind", "metric", "floor"),
    [
        ("multiple_choice", "acc", (1 / 2 + 1 / 4 + 2 / 4) / 3),
        ("multiple_choice", "acc_norm", (1 / 2 + 1 / 4 + 2 / 4) / 3),
        ("multiple_choice", "brier_score", None),
        ("loglikelihood", "acc", 1 / 3),
        ("generate_until", "f1", 0.0),
        ("generate_until", "exact_match", 0.0),
        ("generate_until", "acc", 1 / 3),
        ("generate_until", "bleu", None),
    ],
)
def test_the_floor_is_what_chance_gives(kind, metric, floor):
    options = [[("q", "a"), ("q", "b")], [("q", c) for c in "abcd"], [("q", c) for c in "abcd"] + [("", "a")] * 4]
    samples = [{"arguments": one, "target": t} for one, t in zip(options, (0, 1, [1, 2]), strict=True)]
    assert floor_of(metric, samples, kind=kind) == (None if floor is None else pytest.approx(floor))
    assert floor_of("acc", samples, own=print) is None


def test_options_without_a_context_are_counted_too():
    assert floor_of("acc", [{"arguments": [("", "a"), ("", "b"), ("", "c")], "target": 0}]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_classifiers_f1_has_the_floor_of_a_constant_answer(share):
    golds = [1] * round(10 * share) + [0] * round(10 * (1 - share))
    samples = [{"f1": (gold, 1 - gold), "mcc": (gold, gold), "target": gold, "arguments": []} for gold in golds]
    assert floor_of("f1", samples) == pytest.approx(2 * share / (1 + share))
    assert floor_of("mcc", samples) == 0.0


def test_a_group_sums_up_the_floors_of_its_tasks(folder, model, tokenizer):
    write_docs(folder, documents(5), "fewer.jsonl")
    write_task(
        folder,
        "three",
        CHOICE.replace("good film]", "good film, cat]").replace(", {metric: f1}", ""),
        dataset_kwargs="{data_files: {test: fewer.jsonl}}",
    )
    (folder / "all.yaml").write_text(
        "group: all\ntask: [choice, three]\naggregate_metric_list: [{metric: acc, weight_by_size: false}]\n"
    )
    found = named(harness(folder, "all").evaluate(model, tokenizer))
    assert found["all", "acc"].floor == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found["all", "acc"].members[:2] == ("choice", "three")
    assert found["three", "acc"].members == ()
    assert found["all", "acc"].count == 14
    assert sum(found["all", "acc"].documents) / 14 == pytest.approx(found["all", "acc"].value)
    assert found["all", "acc"].hashes == found["choice", "acc"].hashes + found["three", "acc"].hashes


@contextmanager
def forwards_that_take(most: int, model):
    """A model whose memory is enough for `most` sequences."""
    sizes = []

    def hook(module, args, kwargs):
        ids = args[0] if args else kwargs["input_ids"]
        if len(ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        sizes.append(len(ids))

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    yield sizes
    handle.remove()


def test_memory_that_runs_out_shrinks_the_batch(folder, model, tokenizer):
    names = ("choice", "rolling", "generate")
    expected = harness(folder, *names, batch_size=1).evaluate(model, tokenizer)
    with forwards_that_take(2, model) as sizes:
        found = harness(folder, *names, batch_size=8).evaluate(model, tokenizer)
    assert max(sizes) == 2
    assert [m.value for m in found] == pytest.approx([m.value for m in expected], rel=1e-5)
    with forwards_that_take(0, model), pytest.raises(TaskError, match="memory"):
        harness(folder, "choice").evaluate(model, tokenizer)


def test_free_memory_bounds_the_batch_on_a_cpu(folder, model, tokenizer, monkeypatch):
    import psutil

    class Little:
        available = 2 * 2 * 10 * 19 * 12  # half of it is two sequences of ten tokens

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    write_docs(folder, [{"text": " ".join(WORDS[i : i + 10])} for i in range(5)])
    with forwards_that_take(99, model) as sizes:
        harness(folder, "rolling").evaluate(model, tokenizer)
    assert sizes == [2, 2, 1]


# ---- what is refused


RUNS_CODE = {
    "function": "process_docs: !function evil.touch\n",
    "nested function": "fewshot_config: {samples: !function evil.touch}\n",
    "verbatim tag": "process_docs: !<!function> evil.touch\n",
    "tag shorthand": "%TAG !e! !func\n---\ntask: dirty\nprocess_docs: !e!tion evil.touch\n",
    "class": "class: evil.Task\n",
    "merged class": "'<<': {class: evil.Task}\n",
    "unsafe code": "unsafe_code: true\n",
    "metric script": "metric_list: [{metric: ./evil.py, hf_evaluate: true}]\n",
    "generation loop": "generation_kwargs: {custom_generate: ./evil, trust_remote_code: true}\n",
    "prompt source": "use_prompt: 'promptsource:*'\n",
}


@pytest.fixture
def evil(folder):
    flag = folder / "ran"
    (folder / "evil.py").write_text(
        f"open({str(flag)!r}, 'w').close()\n\ndef touch(docs):\n    return docs\n\n\nclass Task: ...\n"
    )
    return flag


@pytest.mark.parametrize("line", RUNS_CODE.values(), ids=RUNS_CODE)
@pytest.mark.parametrize("how", ["path", "task_path", "include", "group"])
def test_code_is_refused_before_it_runs(folder, evil, line, how):
    text = (folder / "choice.yaml").read_text().replace("task: choice", "task: dirty")
    dirty = folder / "dirty.yaml"
    # A directive stands before the document, with the name; elsewhere the name comes with the rest.
    dirty.write_text(line + (text.replace("task: dirty", "") if line.startswith("%") else text))
    options = {"tasks": (str(dirty),)}
    if how == "task_path":
        options = {"tasks": ("dirty",), "task_path": folder}
    elif how == "include":
        (folder / "outer.yaml").write_text("task: outer\ninclude: middle.yaml\n")
        (folder / "middle.yaml").write_text("include: [dirty.yaml]\n")
        options = {"tasks": (str(folder / "outer.yaml"),)}
    elif how == "group":
        (folder / "all.yaml").write_text("group: all\ntask: [choice, dirty]\n")
        options = {"tasks": (str(folder / "all.yaml"),)}
    with pytest.raises(TaskError, match=r"dirty\.yaml, line \d+: the .* --allow-task-code") as caught:
        Harness(Harness.Config(**options)).prepare()
    assert "\n" not in str(caught.value)
    assert not evil.exists()


@pytest.mark.parametrize("how", ["include", "group"])
def test_functions_of_lm_eval_are_not_lent_to_local_data(folder, how):
    base = guard.builtin_directory() / "hellaswag" / "hellaswag.yaml"
    data = "dataset_path: json\ndataset_kwargs: {data_files: {test: docs.jsonl}}\n"
    if how == "include":
        (folder / "mine.yaml").write_text(f"task: mine\ninclude: {base}\n{data}")
    else:
        (folder / "mine.yaml").write_text(f"group: mine\ntask: [hellaswag]\n{data}")
    with pytest.raises(TaskError, match=r"hellaswag\.yaml, line \d+: the tag !function"):
        harness(folder, "mine").prepare()


def test_harmless_keys_are_not_refused(folder, model, tokenizer):
    write_task(
        folder,
        "fine",
        CHOICE,
        metadata="{class: x, version: 1}",
        unsafe_code="false",
        fewshot_config="{samples: [{class: good, text: a, label: 0}]}",
    )
    assert harness(folder, "fine").evaluate(model, tokenizer)


def test_code_that_is_allowed_runs(folder, evil, model, tokenizer):
    write_task(folder, "coded", CHOICE, process_docs="!function evil.touch")
    assert harness(folder, "coded", allow_task_code=True).evaluate(model, tokenizer)
    assert evil.exists()


PAYLOAD = "{{ ''.__class__.__mro__[1].__subclasses__() }}"


def test_templates_cannot_reach_python(folder, model, tokenizer):
    import lm_eval.utils

    before = lm_eval.utils.env
    write_task(folder, "ssti", CHOICE.replace('"{{text}}"', f'"{PAYLOAD}"'))
    with pytest.raises(TaskError, match="SecurityError"):
        harness(folder, "ssti").prepare()
    guarded = "{% if text == '" + documents()[2]["text"] + "' %}" + PAYLOAD + "{% endif %}x"
    write_task(folder, "late", CHOICE.replace('"{{text}}"', f'"{guarded}"'))
    with pytest.raises(TaskError, match=r"'late'.*SecurityError"):
        harness(folder, "late").evaluate(model, tokenizer)
    assert lm_eval.utils.env is before


def test_include_that_goes_in_circles(folder):
    (folder / "a.yaml").write_text("task: a\ninclude: b.yaml\n")
    (folder / "b.yaml").write_text("include: a.yaml\n")
    with pytest.raises(TaskError, match="includes itself"):
        harness(folder, "a").prepare()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("task: [unclosed\n", "line"),
        ("- a\n- b\n", "Expected YAML dict"),
        ("output_type: multiple_choice\n", "no name"),
        ("task: x\ninclude: gone.yaml\n", r"gone\.yaml"),
        ("task: x\noutput_type: nonsense\n", "output_type"),
        ("task: x\nbogus: 1\n", "bogus"),
        ("task: x\nmetadata: {a: !!python/name:os.system ''}\n", "line 2: .*python/name"),
    ],
)
def test_malformed_files(folder, text, reason):
    (folder / "odd.yaml").write_text(text)
    with pytest.raises(TaskError, match=reason) as caught:
        harness(folder, "odd").prepare()
    assert "\n" not in str(caught.value)


def test_malformed_file_in_the_task_path(folder):
    (folder / "odd.yaml").write_text("task: odd\nx: [\n")
    with pytest.raises(TaskError, match=r"odd\.yaml"):
        Harness(Harness.Config(tasks=("odd",), task_path=folder)).prepare()


def test_missing_file_and_directory(folder):
    with pytest.raises(TaskError, match=r"gone\.yaml does not exist"):
        harness(folder, "gone").prepare()
    with pytest.raises(TaskError, match="no directory"):
        Harness(Harness.Config(tasks=("x",), task_path=folder / "gone")).prepare()


def test_unknown_name_suggests_near_ones(folder):
    with pytest.raises(UnknownNameError, match=r"hellaswg.*'hellaswag'"):
        Harness(Harness.Config(tasks=("hellaswg",), task_path=folder)).prepare()
    (folder / "all.yaml").write_text("group: all\ntask: [choice, rollin]\n")
    with pytest.raises(UnknownNameError, match=r"rollin.*'rolling'"):
        Harness(Harness.Config(tasks=("all",), task_path=folder)).prepare()


def test_two_tasks_of_one_name(folder):
    (folder / "again.yaml").write_text((folder / "choice.yaml").read_text())
    with pytest.raises(TaskError, match="two of the tasks are named 'choice'"):
        harness(folder, "choice", "again").prepare()


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ("[{metric: acuracy}]", "unknown metric 'acuracy'"),
        ("[{metric: acc, aggregation: meen}]", "unknown aggregation 'meen'"),
    ],
)
def test_unknown_metric_is_not_looked_up(folder, metrics, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "evaluate", None)
    write_task(folder, "odd", CHOICE.replace("[{metric: acc}, {metric: f1}]", metrics))
    with pytest.raises(TaskError, match=reason):
        harness(folder, "odd").prepare()


def test_too_few_shots(folder):
    with pytest.raises(TaskError, match="'choice'"):
        harness(folder, "choice", num_fewshot=50).prepare()


def test_data_set_that_cannot_be_loaded(folder, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    write_task(folder, "remote", CHOICE, dataset_path="nobody/nothing", dataset_kwargs="")
    with pytest.raises(TaskError, match="'remote': its data set 'nobody/nothing' cannot be loaded") as caught:
        harness(folder, "remote").prepare()
    assert "\n" not in str(caught.value)
    (folder / "docs.jsonl").write_text('{"text": \n')
    with pytest.raises(TaskError, match="'choice': its data set 'json'"):
        harness(folder, "choice").prepare()


def test_order_in_which_data_files_are_looked_for(folder, model, tokenizer, monkeypatch, tmp_path_factory):
    given, here = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    for directory, count in ((folder, 2), (given, 3), (here, 4)):
        write_docs(directory, documents(count))

    def count(**options):
        one = harness(folder, "choice", **options)
        one.prepare()
        return len(one._loaded.tasks["choice"].eval_docs)

    assert count(data_dir=given) == 3
    assert count() == 2
    (folder / "docs.jsonl").unlink()
    assert count() == 4
    (here / "docs.jsonl").unlink()
    (given / "docs.jsonl").unlink()
    with pytest.raises(TaskError, match=rf"docs\.jsonl.*{given}.*{folder}.*{here}"):
        count(data_dir=given)


@pytest.mark.parametrize("files", ["docs.jsonl", "[docs.jsonl]", "{test: [docs.jsonl]}", "{test: 'd*s.jsonl'}"])
def test_shapes_of_data_files(folder, files):
    split = "test" if "test" in files else "train"
    write_task(folder, "shape", CHOICE, dataset_kwargs=f"{{data_files: {files}}}", test_split=split)
    harness(folder, "shape").prepare()


# ---- tokenizers and models


def test_tokenizer_without_bos_and_eos(folder, model):
    bare = make_tokenizer(pad_token="<unk>")
    assert harness(folder, "choice", "rolling", "generate").evaluate(model, bare)
    none = make_tokenizer()
    assert harness(folder, "choice", "generate").evaluate(model, none)
    with pytest.raises(TaskError, match=r"'rolling'.*special token"):
        harness(folder, "rolling").evaluate(model, none)


def test_context_of_nothing_but_space(folder, model, tokenizer):
    write_docs(folder, [{"text": text, "label": 0} for text in ("", "   ", "the cat")])
    assert harness(folder, "choice", "generate").evaluate(model, tokenizer)


def test_tokenizer_of_another_model(folder, tokenizer):
    with pytest.raises(TaskError, match="do not belong together"):
        harness(folder, "choice").evaluate(make_model(vocab_size=5), tokenizer)
    with pytest.raises(TaskError, match="tokenizer"):
        harness(folder, "choice").evaluate(make_model(), None)


def test_requests_that_do_not_fit(folder, model, tokenizer):
    write_task(folder, "long", GENERATE.replace("4", "400"))
    with pytest.raises(TaskError, match="'long'"):
        harness(folder, "long").evaluate(model, tokenizer)
    write_task(folder, "wide", CHOICE.replace("good film", " ".join(["good"] * 50)))
    with pytest.raises(TaskError, match="'wide': a continuation of 50 tokens"):
        harness(folder, "wide").evaluate(model, tokenizer)


def test_encoders_are_refused(folder, tokenizer):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        harness(folder, "choice").evaluate(BertForMaskedLM(BertConfig(vocab_size=30, **sizes)), tokenizer)


def test_sixteen_bits(folder, tokenizer):
    whole, half = make_model(), make_model().to(torch.bfloat16)
    values = [harness(folder, "rolling").evaluate(m, tokenizer)[2].value for m in (whole, half)]
    assert values[1] == pytest.approx(values[0], rel=0.02)


# ---- what is left as it was


def test_nothing_is_printed_or_changed(folder, model, tokenizer, capfd):
    logging.getLogger("lm_eval").addHandler(handler := logging.StreamHandler())
    model.train()
    model.model.layers[0].eval()
    weights = {name: value.clone() for name, value in model.state_dict().items()}

    def state():
        return (
            [part.training for part in model.modules()],
            model.config.to_dict(),
            model.generation_config.to_dict(),
            tokenizer.backend_tokenizer.to_str(),
            tokenizer.special_tokens_map,
            tokenizer.padding_side,
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            sys.stdout,
            sys.stderr,
            logging.root.manager.disable,
        )

    before = state()
    try:
        one = harness(folder, "choice", "rolling", "generate")
        one.evaluate(model, tokenizer)
        one.fingerprint()
    finally:
        logging.getLogger("lm_eval").removeHandler(handler)
    assert state() == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_all_is_undone_after_an_error(capfd):
    before = sys.stdout, sys.stderr, random.getstate(), logging.root.manager.disable

    def fail():
        with contained(3):
            print("unseen", random.random())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (sys.stdout, sys.stderr, random.getstate(), logging.root.manager.disable) == before
    assert capfd.readouterr() == ("", "")


def test_progress(folder, model, tokenizer):
    class Listener:
        def __init__(self):
            self.stages = []

        @contextmanager
        def stage(self, description, total=None):
            self.stages.append([description, total, 0])
            old = sys.stdout, sys.stderr
            sys.stdout = sys.stderr = sys.__stdout__  # as a live display does
            try:
                yield self.advance
            finally:
                sys.stdout, sys.stderr = old

        def advance(self, units):
            self.stages[-1][2] += units

    one = harness(folder, "choice", "rolling", "generate", max_length=6)
    one.progress = Listener()
    before = sys.stdout, sys.stderr
    one.evaluate(model, tokenizer)
    assert one.progress.stages == [["evaluate choice, rolling, generate", 36, 36]]
    assert (sys.stdout, sys.stderr) == before


# ---- fingerprint


def test_fingerprint_changes_with_everything_that_counts(folder, evil):
    write_docs(folder, documents(4), "shots.jsonl")
    files = "{data_files: {test: docs.jsonl, train: shots.jsonl}}"
    write_task(folder, "choice", CHOICE, dataset_kwargs=files, training_split="train")

    def fingerprint(*names, **options):
        return harness(folder, *(names or ("choice",)), **options).fingerprint()

    base = fingerprint()
    assert base == fingerprint() == fingerprint(batch_size=1) == fingerprint(data_dir=folder)
    changed = [
        fingerprint("choice", "rolling"),
        fingerprint(limit=5),
        fingerprint(num_fewshot=2),
        fingerprint(seed=1),
        fingerprint(bootstrap=60),
        fingerprint(max_length=16),
    ]
    limited, shots = changed[1], changed[2]
    docs = documents()
    docs[7]["text"] += " cat"
    write_docs(folder, docs)
    changed.append(fingerprint())
    assert fingerprint(limit=5) == limited  # the eighth document is not evaluated
    write_docs(folder, documents())
    assert fingerprint() == base
    write_docs(folder, documents(5), "shots.jsonl")
    assert fingerprint() == base
    assert fingerprint(num_fewshot=2) != shots
    write_task(folder, "choice", CHOICE.replace("on the", "mat"), dataset_kwargs=files, training_split="train")
    changed.append(fingerprint())
    assert len({base, *changed}) == len(changed) + 1


def test_fingerprint_covers_code(folder, evil):
    write_task(folder, "coded", CHOICE, process_docs="!function evil.touch")
    before = harness(folder, "coded", allow_task_code=True).fingerprint()
    assert harness(folder, "coded", allow_task_code=True).fingerprint() == before
    with (folder / "evil.py").open("a") as file:
        file.write("\nHELPER = 1\n")
    assert harness(folder, "coded", allow_task_code=True).fingerprint() != before


def test_builtin_files_are_trusted():
    assert guard.is_builtin(guard.builtin_directory() / "hellaswag" / "hellaswag.yaml")
    assert not guard.is_builtin(Path(__file__))


# ---- what is kept between two models


def test_texts_are_tokenised_once_for_all_models_of_a_run(folder, model, tokenizer, monkeypatch):
    one = harness(folder, "choice", "rolling", "generate")
    first = one.evaluate(model, tokenizer)
    encoded = []
    usual = PreTrainedTokenizerFast._encode_plus
    monkeypatch.setattr(
        PreTrainedTokenizerFast,
        "_encode_plus",
        lambda self, text, *args, **kwargs: encoded.append(text) or usual(self, text, *args, **kwargs),
    )
    assert one.evaluate(model, tokenizer) == first
    texts = [text for text in encoded if isinstance(text, str)]
    assert not any(doc["text"] in text for doc in documents() for text in texts)


def test_a_tokenizer_that_changes_between_two_models_is_asked_again(folder, model, tokenizer):
    one = harness(folder, "choice", "rolling")
    first = one.evaluate(model, tokenizer)
    changed = make_tokenizer(words=WORDS[::-1], unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    expected = harness(folder, "choice", "rolling").evaluate(model, changed)
    assert one.evaluate(model, changed) == expected != first
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 2)]
    )
    expected = harness(folder, "choice", "rolling").evaluate(model, tokenizer)
    assert one.evaluate(model, tokenizer) == expected != first
    with pytest.raises(TaskError, match="do not belong together"):
        one.evaluate(make_model(vocab_size=5), tokenizer)


def test_tokens_of_a_tokenizer_that_cannot_be_compared_are_not_kept():
    class Odd:
        def __reduce__(self):
            raise TypeError("cannot pickle this")

    memory = TokenMemory()
    memory.open(Odd())
    memory.keep("a", [1, 2])
    assert memory.get("a") == [1, 2]
    memory.open(Odd())
    assert memory.get("a") is None


def test_a_template_is_compiled_once(folder, model, tokenizer, monkeypatch):
    import jinja2

    one = harness(folder, "rolling")
    one.prepare()
    compiled = []
    usual = jinja2.Environment.compile
    monkeypatch.setattr(
        jinja2.Environment, "compile", lambda self, source, *args: compiled.append(source) or usual(self, source, *args)
    )
    one.evaluate(model, tokenizer)
    assert compiled.count("{{text}}") == 1


def test_a_group_in_a_group_counts_by_the_outer_one(folder, model, tokenizer):
    (folder / "nested.yaml").write_text(
        textwrap.dedent("""
            group: outer
            task:
              - choice
              - group: inner
                task:
                  - task: again
                    dataset_path: json
                    dataset_kwargs: {data_files: {test: docs.jsonl}}
                    test_split: test
                    output_type: multiple_choice
                    doc_to_text: '{{text}}'
                    doc_to_choice: [cat, dog]
                    doc_to_target: label
                    metric_list: [{metric: acc}]
                aggregate_metric_list: [{metric: acc}]
            aggregate_metric_list: [{metric: acc}]
        """)
    )
    metrics = harness(folder, "nested").evaluate(model, tokenizer)
    assert len({metric.task for metric in metrics if metric.members}) == 2
    assert list(counting(metrics)) == ["outer"]


def test_texts_are_the_documents_as_they_are_worded(folder):
    texts = set(harness(folder, "choice", "rolling").texts())
    first = documents()[0]
    assert first["text"] in texts or len(first["text"]) < 20
    assert f"{first['text']} {['on the', 'good film'][first['label']]}" in texts
    assert not any(len(text) < 10 for text in texts)
