"""The documents of a group are those of its tasks, with the weights that the group states."""

from __future__ import annotations

import textwrap

import pytest
from support.lm_tasks import CHOICE, GENERATE, documents, harness, named, write_docs, write_task


def test_tasks_of_equal_value_have_the_weights_that_the_group_states(folder, model, tokenizer):
    """The mean is the same with both kinds of weights, and so cannot tell which of them it has."""
    for name, count in (("few", 4), ("many", 8)):
        write_docs(folder, (documents(4) * 2)[:count], f"{name}.jsonl")
        write_task(folder, name, CHOICE, dataset_kwargs=f"{{data_files: {{test: {name}.jsonl}}}}")
    for stated, weights in (("true", (1 / 3, 2 / 3)), ("false", (0.5, 0.5))):
        (folder / "all.yaml").write_text(
            f"group: all\ntask: [few, many]\naggregate_metric_list: [{{metric: acc, weight_by_size: {stated}}}]\n"
        )
        metrics = named(harness(folder, "all").evaluate(model, tokenizer))
        assert metrics["few", "acc"].value == metrics["many", "acc"].value
        assert [part.weight for part in metrics["all", "acc"].strata] == pytest.approx(weights)


def test_a_group_has_the_documents_and_answers_of_its_own_filter(folder, model, tokenizer):
    """No answer is right after either filter, so that the values are equal and the answers differ."""
    filters = """
        filter_list:
          - {name: raw, filter: [{function: take_first}]}
          - {name: upper, filter: [{function: uppercase}, {function: take_first}]}
    """
    for name, count in (("one", 3), ("two", 5)):
        write_docs(folder, documents(count), f"{name}.jsonl")
        text = textwrap.dedent(GENERATE) + textwrap.dedent(filters)
        write_task(folder, name, text, dataset_kwargs=f"{{data_files: {{test: {name}.jsonl}}}}")
    (folder / "all.yaml").write_text("group: all\ntask: [one, two]\naggregate_metric_list: [{metric: exact_match}]\n")
    metrics = named(harness(folder, "all").evaluate(model, tokenizer))
    for name in ("exact_match", "exact_match[upper]"):
        parts = [metrics[task, name] for task in ("one", "two")]
        assert metrics["all", name].answers == parts[0].answers + parts[1].answers
        assert metrics["all", name].documents == parts[0].documents + parts[1].documents
        assert metrics["all", name].members == ("one", "two")
    assert metrics["all", "exact_match"].answers != metrics["all", "exact_match[upper]"].answers
