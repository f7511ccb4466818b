"""The fingerprint changes with everything that changes a metric."""

from __future__ import annotations

from support.lm_tasks import (
    CHOICE,
    documents,
    harness,
    write_docs,
    write_task,
)


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
    assert fingerprint(limit=len(docs)) == changed[-1]  # all documents are
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
