"""No network in tests of the harness; a folder with three tasks, and a model that answers them."""

from __future__ import annotations

import socket

import datasets
import pytest
from support.lm_tasks import (
    CHOICE,
    GENERATE,
    ROLLING,
    documents,
    make_model,
    make_tokenizer,
    write_docs,
    write_task,
)


@pytest.fixture(autouse=True)
def closed(monkeypatch, tmp_path):
    """No network, and a data set cache of the test's own."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def tokenizer():
    return make_tokenizer(unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def folder(tmp_path):
    """A multiple-choice task, a perplexity and a generation, on the same 9 documents."""
    write_docs(tmp_path, documents())
    write_task(tmp_path, "choice", CHOICE)
    write_task(tmp_path, "rolling", ROLLING)
    write_task(tmp_path, "generate", GENERATE)
    return tmp_path


@pytest.fixture
def evil(folder):
    """A file that appears where the code beside the tasks has run."""
    flag = folder / "ran"
    (folder / "evil.py").write_text(
        f"open({str(flag)!r}, 'w').close()\n\ndef touch(docs):\n    return docs\n\n\nclass Task: ...\n"
    )
    return flag
