"""The code of a task runs only where that is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from layerimp_harness import Harness, guard
from support.lm_tasks import (
    CHOICE,
    documents,
    harness,
    write_task,
)

from layerimp.errors import TaskError

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


def test_texts_are_worded_in_the_sandbox(folder, tmp_path):
    trace = tmp_path / "trace"
    payload = "{{ cycler.__init__.__globals__.os.mkdir('" + str(trace) + "') }}"
    guarded = "{% if text == '" + documents()[2]["text"] + "' %}" + payload + "{% endif %}x"
    write_task(folder, "late", CHOICE.replace('"{{text}}"', f'"{guarded}"'))
    assert harness(folder, "late").texts()
    assert not trace.exists()
    assert harness(folder, "late", allow_task_code=True).texts()
    assert trace.exists(), "the payload works"


def test_builtin_files_are_trusted():
    assert guard.is_builtin(guard.builtin_directory() / "hellaswag" / "hellaswag.yaml")
    assert not guard.is_builtin(Path(__file__))
