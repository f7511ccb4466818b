"""Comparers are run once on the intact model; one that fails is left out, and one that changes a model ends the run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.comparers import Agreement, Bare
from support.heard import Heard

import layerimp
from layerimp.calibration.sampling import CalibrationSet
from layerimp.errors import PluginError
from layerimp.evaluation.comparing import Comparing, comparer_of
from layerimp.fidelity import Fidelity
from layerimp.progress import SILENT
from layerimp.registry.catalog import registry
from layerimp.testing import batch, tiny_model, tiny_tokenizer

TEXT = CalibrationSet(tuple(map(tuple, batch(3, 12)["input_ids"].tolist())), 2, "a text")


class Twice(Agreement):
    """Counts how often the intact model is run."""

    runs = 0

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        type(self).runs += 1
        return super().comparison(intact, tokenizer, text)


class Failing(Agreement):
    """Fails on the second model with an error."""

    error: Exception = RuntimeError("no more")

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        compare, calls = super().comparison(intact, tokenizer, text), []

        def fail(model: Any) -> Fidelity:
            calls.append(model)
            if len(calls) > 1:
                raise self.error
            return compare(model)

        return fail


class Rounding(Agreement):
    """Changes a weight of the intact model."""

    def comparison(self, intact: Any, tokenizer: Any, text: Any) -> Any:
        compare = super().comparison(intact, tokenizer, text)

        def change(model: Any) -> Fidelity:
            with torch.no_grad():
                intact.lm_head.weight.mul_(2)
            return compare(model)

        return change


def comparing(comparer: Any, heard: Any = SILENT) -> tuple[Comparing, list[Any]]:
    model = tiny_model()
    others = [layerimp.prune(copy.deepcopy(model), [block]) for block in (1, 2)]
    return Comparing("mine", comparer, model, tiny_tokenizer(), heard), others


def test_the_intact_model_is_run_once_when_it_is_needed() -> None:
    ready, others = comparing(Twice())
    assert Twice.runs == 0
    together = [ready.of(other, TEXT, "other") for other in others]
    assert Twice.runs == 1
    assert all(isinstance(each, Fidelity) for each in together)
    alone = [comparing(Twice())[0].of(other, TEXT, "other") for other in others]
    assert together == alone


@pytest.mark.parametrize(
    ("comparer", "expected", "said"),
    [(Failing(), [True, False, False], "no more"), (Bare(), [False, False, False], "no Fidelity")],
)
def test_a_comparer_that_fails_is_left_out_with_a_line(comparer: Any, expected: list[bool], said: str) -> None:
    heard = Heard()
    ready, others = comparing(comparer, heard)
    fidelities = [ready.of(other, TEXT, "other") for other in (*others, others[0])]
    assert [each is not None for each in fidelities] == expected
    assert len(heard.lines) == 1
    assert heard.lines[0].startswith("the evaluator mine is left out: evaluator 'mine'")
    assert said in heard.lines[0]
    assert ready.failed
    assert said in ready.failed


def test_a_model_that_predicts_nan_is_left_out_alone() -> None:
    heard = Heard()
    ready, (good, broken) = comparing(registry().get("evaluator", "fidelity")(), heard)
    with torch.no_grad():
        broken.get_output_embeddings().weight.fill_(torch.nan)
    assert ready.of(good, TEXT, "good") is not None
    assert ready.of(broken, TEXT, "broken") is None
    assert ready.reason
    assert "NaN" in ready.reason
    assert ready.failed is None
    assert ready.of(good, TEXT, "good") is not None
    assert ready.reason is None
    assert [line for line in heard.lines if line.startswith("broken is not compared with the intact model: ")]


def test_text_without_a_prediction_leaves_fidelity_out_with_a_line() -> None:
    heard = Heard()
    ready, (other, _) = comparing(registry().get("evaluator", "fidelity")(), heard)
    assert ready.of(other, CalibrationSet(((5,), (7,)), 2, "a text"), "other") is None
    assert ready.failed == "the text has nothing to predict: every row is a single token"
    assert heard.lines == [f"the evaluator mine is left out: {ready.failed}"]


def test_a_comparer_that_changes_a_model_is_not_trusted() -> None:
    ready, (other, _) = comparing(Rounding())
    with pytest.raises(PluginError, match=r"changed .*no number after that could be trusted"):
        ready.of(other, TEXT, "other")


def test_the_comparer_of_several_evaluators() -> None:
    footprint = registry().get("evaluator", "footprint")()
    mine = Agreement()
    assert comparer_of({"footprint": footprint, "mine": mine}) == ("mine", mine)
    assert comparer_of({"footprint": footprint}) is None
