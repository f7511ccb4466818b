"""The results of a run are built from what its stages returned."""

from __future__ import annotations

from support.reports import report

from layerimp.pipeline.reporting import results_of
from layerimp.pipeline.run import StageResults


def test_failures_of_an_evaluator_and_a_scorer_of_one_label_are_both_listed() -> None:
    run = report().run
    run.evaluation.failed["mine"] = "evaluator 'mine' failed"
    run.selection.failed["mine"] = "scorer 'mine' failed"
    results = results_of(run, StageResults(failed={"avss+linear": "healer 'linear' failed"}))
    assert [(failure.what, failure.error) for failure in results.failures] == [
        ("avss+linear", "healer 'linear' failed"),
        ("mine", "evaluator 'mine' failed"),
        ("mine", "scorer 'mine' failed"),
    ]
