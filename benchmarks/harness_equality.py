"""The answers of layerimp's model beside those of `lm_eval --model hf`, request by request, on the same local rows.

    python benchmarks/harness_equality.py --model DIR --data-dir DATA --results FILE

For each task it gives the greatest difference of two log-likelihoods, and the documents with another answer: in all,
and where the answer of lm_eval leads by more than 1e-4. The requests that differ most are computed once more in
float64, one by one, without padding; so one can see which of the two is nearer to what the weights say. Generated text
is compared as text.

Finished tasks are kept in --results, a JSON line for each, so that the same command continues. No row is kept there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from finished import Finished
from harness_sides import loaded, results

import layerimp

LIMITS = {
    "hellaswag": 10,
    "arc_easy": 16,
    "arc_challenge": 12,
    "winogrande": 20,
    "boolq": 8,
    "lambada_openai": 16,
    "blimp": 1,
}
"""The tasks of `zero-shot`, and how many documents are measured of each; of BLiMP, of each of its 67 files."""
BOUND = 1e-4
"""The greatest difference of two log-likelihoods that counts as equal."""
WORST = 8
"""How many requests of a task are computed in float64."""
METRICS = ("acc_norm", "acc", "exact_match")


@dataclass(frozen=True)
class Request:
    """A request for a log-likelihood, and both answers.

    Attributes:
        task: The task.
        document: The number of the document.
        arguments: The context and the continuation.
        theirs: lm_eval's log-likelihood.
        ours: layerimp's.
    """

    task: str
    document: int
    arguments: tuple[str, str]
    theirs: float
    ours: float

    @property
    def apart(self) -> float:
        """The difference."""
        return abs(self.theirs - self.ours)


def pairs(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each document's task and both samples; filters of generated text beside the first are left out."""
    for task, samples in theirs["samples"].items():
        first = samples[0]["filter"]
        their_samples, our_samples = (
            [each for each in side["samples"][task] if each["filter"] == first] for side in (theirs, ours)
        )
        for sample, same in zip(their_samples, our_samples, strict=True):
            assert sample["doc_hash"] == same["doc_hash"]
            assert [tuple(a) for a in sample["arguments"]] == [tuple(a) for a in same["arguments"]]
            yield task, sample, same


def values(sample: Mapping[str, Any]) -> list[float]:
    """Return the log-likelihoods of a document's requests."""
    return [float(response[0][0]) for response in sample["resps"]]


def leading(scores: Sequence[float]) -> tuple[int, float]:
    """Return the number of the best score, and by how much it leads."""
    first, second = sorted(scores, reverse=True)[:2]
    return scores.index(first), first - second


def answers(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether a document's answers differ, and whether lm_eval's leads by more than the bound."""
    if len(theirs["resps"]) == 1:  # LAMBADA: whether the continuation is the greedy one
        differ = theirs["resps"][0][0][1] != ours["resps"][0][0][1]
        return differ, False
    verdict = [False, False]
    lengths = [len(continuation) for _context, continuation, *_ in theirs["arguments"]]
    for divisors in ([1] * len(lengths), lengths):
        (first, margin), (second, _) = (
            leading([value / by for value, by in zip(values(sample), divisors, strict=True)])
            for sample in (theirs, ours)
        )
        verdict[0] |= first != second
        verdict[1] |= first != second and margin > BOUND / min(divisors)
    return verdict[0], verdict[1]


class Exact:
    """The model in float64, for single requests.

    Args:
        directory: The model directory.
    """

    def __init__(self, directory: Path) -> None:
        self._model, self._tokenizer = layerimp.load(directory, dtype="float64")
        from lm_eval.models.huggingface import HFLM

        self._lm = HFLM(pretrained=self._model, tokenizer=self._tokenizer)

    def tokens(self, request: Request) -> tuple[list[int], list[int]]:
        """Return the tokens of the context and of the continuation, as lm_eval cuts them."""
        context, continuation = request.arguments
        if context:
            before, after = self._lm._encode_pair(context, continuation)
            return list(before), list(after)
        return [self._lm.prefix_token_id], list(self._lm.tok_encode(continuation))

    def of(self, request: Request) -> float:
        """Return the log-likelihood."""
        before, after = self.tokens(request)
        if before == after[:1]:
            after = after[1:]
        with torch.no_grad():
            logits = self._model(torch.tensor([[*before, *after]])).logits[0, len(before) - 1 : -1]
        return float(logits.log_softmax(-1).gather(-1, torch.tensor(after)[:, None]).sum())


def compared(theirs: Mapping[str, Any], ours: Mapping[str, Any], exact: Exact | None) -> dict[str, Any]:
    """Return what differs between both sides."""
    requests: list[Request] = []
    differ = beyond = documents = texts = 0
    for task, sample, same in pairs(theirs, ours):
        documents += 1
        if isinstance(sample["resps"][0][0], str):
            texts += sample["resps"] != same["resps"]
            continue
        both = zip(sample["arguments"], values(sample), values(same), strict=True)
        requests += (Request(task, sample["doc_id"], (a[0], a[1]), x, y) for a, x, y in both)
        changed, sure = answers(sample, same)
        differ, beyond = differ + changed, beyond + sure
    worst = sorted(requests, key=lambda request: -request.apart)[:WORST]
    line = {
        "documents": documents,
        "requests": len(requests),
        "greatest": max((request.apart for request in requests), default=0.0),
        "above_bound": sum(request.apart > BOUND for request in requests),
        "other_answers": differ,
        "other_answers_beyond_the_margin": beyond,
        "other_texts": texts,
        "metrics": {
            task: {name: [results["results"][task].get(f"{name},{chosen}") for results in (theirs, ours)]}
            for task, (name, chosen) in ((task, _metric(row)) for task, row in theirs["results"].items())
            if name
        },
    }
    if exact is None or not worst:
        return line
    truth = [exact.of(request) for request in worst]
    return line | {
        "worst": [
            {
                "task": request.task,
                "document": request.document,
                "tokens": len(exact.tokens(request)[1]),
                "float64": value,
                "lm_eval": request.theirs - value,
                "layerimp": request.ours - value,
            }
            for request, value in zip(worst, truth, strict=True)
        ]
    }


def _metric(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of a task's metric and of its filter; empty if it has none of those that are compared."""
    for wanted in METRICS:
        for key in row:
            name, comma, chosen = key.partition(",")
            if comma and name == wanted:
                return name, chosen
    return "", ""


def main(
    model: Annotated[Path, typer.Option(help="A model directory.")],
    data_dir: Annotated[Path, typer.Option(help="The directory with the rows.")],
    results_file: Annotated[Path | None, typer.Option("--results", help="The file for finished tasks.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")] = None,
    limit: Annotated[list[str] | None, typer.Option(help="TASK=N in place of the usual number; repeatable.")] = None,
    shots: Annotated[int | None, typer.Option(help="Examples; by default those of the task.")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    batch_size: Annotated[int, typer.Option(help="The batch size of both.")] = 8,
    threads: Annotated[int, typer.Option(help="The threads of both.")] = 1,
) -> None:
    """Compare and print."""
    torch.set_num_threads(threads)
    limits = LIMITS | {
        name: int(number) for name, _, number in (assignment.partition("=") for assignment in limit or [])
    }
    done = Finished(results_file, [model.name, dtype, batch_size, shots])
    known = {(line["name"], line["limit"]) for line in done.lines}
    ready, tokenizer = layerimp.load(model, dtype=dtype)
    exact = Exact(model) if dtype == "float32" else None
    for name in task or LIMITS:
        if (name, limits[name]) not in known:
            tasks = loaded(data_dir, name, shots)
            sides = [results(side, ready, tokenizer, tasks, limits[name], batch_size) for side in SIDES]
            place = {"model": model.name, "dtype": dtype, "name": name, "limit": limits[name], "shots": shots}
            done.add(place | {"batch_size": batch_size} | compared(sides[0], sides[1], exact))
    for line in done.lines:
        print(shown(line))


SIDES = ("lm_eval", "layerimp")


def shown(line: Mapping[str, Any]) -> str:
    """Return a finished task in a line, and a line for each of its requests that differs most."""
    text = (
        f"{line['model']} {line['dtype']} {line['name']}: {line['documents']} documents, {line['requests']} requests, "
        f"greatest difference {line['greatest']:.1e}, {line['above_bound']} above {BOUND:g}; other answers: "
        f"{line['other_answers']}, beyond the margin {line['other_answers_beyond_the_margin']}; other texts: "
        f"{line['other_texts']}"
    )
    return "\n".join(
        [
            text,
            *(
                f"    {each['task']} {each['document']}, {each['tokens']} tokens: float64 {each['float64']:.6f}, "
                f"lm_eval {each['lm_eval']:+.1e}, layerimp {each['layerimp']:+.1e}"
                for each in line.get("worst", [])[:3]
            ),
        ]
    )


if __name__ == "__main__":
    typer.run(main)
