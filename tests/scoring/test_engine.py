"""Scoring: shared passes, no logits, nothing left behind, sound input."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from layerimp_avss import AVSS, AVSSConfig
from layerimp_step import Step
from support.tiny import tiny

import layerimp
from layerimp.errors import CalibrationError, ModelError, NonFiniteError, OptionError, UnknownNameError
from layerimp.scorer import Importance, Scorer
from layerimp.sweep import Ablation, Backward, Forward, Sweep, Trace
from layerimp.testing import BLOCKS, batch, padded_batch


def forwards(module: torch.nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_a_scorer_gets_what_the_blocks_did() -> None:
    model, inputs = tiny("llama"), padded_batch()
    with torch.no_grad():
        states = model.model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
    mask = inputs["attention_mask"].bool()
    expected = [float((b - a)[mask].norm(dim=-1).double().mean()) for a, b in pairwise(states[:-1])]
    importance = layerimp.score(model, [inputs], [Step(BLOCKS)])["step"]
    assert importance.scores[:-1] == pytest.approx(expected, rel=1e-6)
    assert importance.blocks == list(range(BLOCKS))


def test_scorers_share_one_pass_without_the_head() -> None:
    model = tiny("llama")
    backbone, head = forwards(model.model), forwards(model.lm_head)
    layerimp.score(model, [batch(), batch()], {"a": "avss", "b": "avss", "step": Step(BLOCKS)})
    assert len(backbone) == 2
    assert not head


def test_sweeps_are_as_few_as_their_scorers_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward pass, one forward and backward pass for each set of rules, and one with changed blocks."""
    driven: list[Sweep] = []
    for cls in (Forward, Backward, Ablation):

        def drive(self: Any, *args: Any, real: Any = cls.drive, **kwargs: Any) -> None:
            driven.append(self)
            real(self, *args, **kwargs)

        monkeypatch.setattr(cls, "drive", drive)
    names = "avss block-influence relative-magnitude angular gbis lrp taylor cim perplexity random depth".split()
    assert list(layerimp.score(tiny("llama"), [batch()], names)) == names
    assert [type(sweep).__name__ for sweep in driven] == ["Forward", "Backward", "Relevance", "Ablation"]


def test_a_generator_of_batches_will_do() -> None:
    model = tiny("llama")
    listed = layerimp.score(model, [batch(), batch(seed=1)], ["avss"])["avss"]
    assert layerimp.score(model, (batch(seed=s) for s in (0, 1)), ["avss"])["avss"].scores == listed.scores


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_activation_names_block_and_batch(value: float) -> None:
    model = tiny("llama")
    token = 50
    clean, bad = batch(), batch()
    clean["input_ids"][clean["input_ids"] == token] = token + 1
    bad["input_ids"][0, 3] = token
    model.model.embed_tokens.register_forward_hook(lambda _m, a, out: out.masked_fill(a[0][..., None] == token, value))
    with pytest.raises(NonFiniteError, match="block 0 puts out a NaN or an infinity in batch 1"):
        layerimp.score(model, [clean, bad], ["avss"])


def test_a_bad_block_is_named() -> None:
    model = tiny("llama")
    model.model.layers[2].mlp.register_forward_hook(lambda _m, _a, out: out * torch.nan)
    for scorer in ("avss", AVSS(BLOCKS, AVSSConfig(site="block_out"))):
        with pytest.raises(NonFiniteError, match=r"block 2 puts out a NaN or an infinity .*batch 0"):
            layerimp.score(model, [batch()], [scorer])


def test_padding_may_hold_anything() -> None:
    model, inputs = tiny("llama"), padded_batch()
    expected = layerimp.score(model, [inputs], ["avss"])["avss"].scores
    inputs["input_ids"][inputs["attention_mask"] == 0] = 10_000
    assert layerimp.score(model, [inputs], ["avss"])["avss"].scores == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b["input_ids"].__setitem__((0, 0), 97), "batch 0 holds token id 97.*ids 0 to 96"),
        (lambda b: b["input_ids"].__setitem__((0, 0), -1), "token id -1"),
        (lambda b: b["attention_mask"].__setitem__(1, 0), "row 1 holds no token"),
        (lambda b: b.__setitem__("input_ids", b["input_ids"][0]), r"\[12\]"),
    ],
)
def test_bad_batches_are_named(change: Any, said: str) -> None:
    inputs = batch()
    change(inputs)
    with pytest.raises(CalibrationError, match=said):
        layerimp.score(tiny("llama"), [inputs], ["avss"])


def test_bad_requests_are_named() -> None:
    model = tiny("llama")
    with pytest.raises(CalibrationError, match="is empty"):
        layerimp.score(model, [], ["avss"])
    with pytest.raises(UnknownNameError, match=r"'avs'.*Did you mean 'avss'"):
        layerimp.score(model, [batch()], ["avs"])
    with pytest.raises(OptionError, match="comes twice"):
        layerimp.score(model, [batch()], ["avss", "avss"])
    with pytest.raises(OptionError, match="made for 7 blocks"):
        layerimp.score(model, [batch()], [Step(7)])
    with pytest.raises(OptionError, match=r"scorers are given as a list, such as \['avss'\], got 'avss'"):
        layerimp.score(model, [batch()], "avss")
    for wrong in (None, 5, Step):
        with pytest.raises(OptionError, match="a scorer is given by its name, or as a configured Scorer, got "):
            layerimp.score(model, [batch()], [wrong])  # type: ignore[list-item]


def test_options_are_given_by_label() -> None:
    model, text = tiny("llama"), [batch()]
    configured = AVSS(BLOCKS, AVSSConfig(site="block_delta", epsilon=0.2))
    wanted = layerimp.score(model, text, {"it": configured})["it"].scores
    options = {"site": "block_delta", "epsilon": 0.2}
    assert layerimp.score(model, text, ["avss"], options={"avss": options})["avss"].scores == wanted
    labelled = layerimp.score(model, text, {"a": "avss", "b": "avss"}, options={"b": options})
    assert labelled["b"].scores == wanted != labelled["a"].scores
    short = layerimp.score(model, text, ["avss-delta"], options={"avss-delta": {"epsilon": 0.2}})
    assert short["avss-delta"].scores == wanted


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"site": "block_delta"}, r"by the label of a scorer: options=\{'avss': \{'site': 'block_delta'\}\}, got"),
        ({"avss": "site"}, r"by the label of a scorer: options=\{'avss': \{'OPTION': 'VALUE'\}\}, got"),
        ({"avss": {}, "gbis": {}}, r"by the label of a scorer: options=\{'avss': "),
        (["site"], r"by the label of a scorer: options=\{'avss': \{'OPTION': 'VALUE'\}\}, got \['site'\]"),
        ({"avss": {"sight": 1}}, r"unknown option 'sight' of scorer 'avss'\. Did you mean 'site'\? Known: epsilon, "),
        ({"avss": {"epsilon": "x"}}, r"option 'epsilon' of scorer 'avss': .* got 'x'\. Options: epsilon, "),
    ],
)
def test_wrong_options_are_answered_with_how_they_are_written(options: Any, said: str) -> None:
    with pytest.raises((OptionError, UnknownNameError), match=said):
        layerimp.score(tiny("llama"), [batch()], ["avss"], options=options)


def test_an_instance_has_its_options_already() -> None:
    with pytest.raises(OptionError, match="the scorer 'step' is an instance, which has its options; give its name"):
        layerimp.score(tiny("llama"), [batch()], [Step(BLOCKS)], options={"step": {}})


def test_a_label_without_a_scorer_is_answered_with_how_labels_are_written() -> None:
    written = r"For a label of your own, name its scorer: \{'best': 'SCORER'\}, options=\{'best': \{...\}\}\.$"
    with pytest.raises(UnknownNameError, match=written):
        layerimp.score(tiny("llama"), [batch()], ["best"])


@pytest.mark.parametrize("model", [None, "gpt2", torch.nn.Linear(2, 2)], ids=["none", "name", "no transformer"])
def test_what_is_no_model_is_named(model: Any) -> None:
    for use in (layerimp.find_blocks, lambda it: layerimp.prune(it, [1]), lambda it: layerimp.heal(it, [1], [batch()])):
        with pytest.raises(ModelError, match="a loaded model of Transformers is needed"):
            use(model)


def test_a_site_that_is_missing_is_named() -> None:
    class Neurons(Step):
        name = "neurons"
        observes = frozenset({"mlp_act"})

    with pytest.raises(ModelError, match="'neurons' reads the site 'mlp_act', which block 0 does not have"):
        layerimp.score(tiny("mixtral"), [batch()], [Neurons(BLOCKS)])


def test_what_does_not_fit_is_refused_before_any_pass() -> None:
    class Unasked(Step):
        def update(self, trace: Trace) -> None:
            pytest.fail("the model was driven")

    model = tiny("llama")
    model.model.layers[1].gradient_checkpointing = True
    with pytest.raises(ModelError, match="gradient checkpointing is on"):
        layerimp.score(model, [batch()], {"unasked": Unasked(BLOCKS), "gbis": "gbis"})


@pytest.mark.parametrize(
    "wrong", [{"scores": [float("nan")]}, {"scores": [1.0], "columns": {"c": [float("inf")]}}], ids=str
)
def test_importance_is_finite(wrong: dict[str, Any]) -> None:
    with pytest.raises(NonFiniteError, match="of block 0 is"):
        Importance(**wrong)


class Reader(Scorer):
    """Notes the traces that it gets, and the sum of each site that it reads."""

    name = "reader"
    sweep = Forward()

    def __init__(self, num_blocks: int, config: Any = None) -> None:
        super().__init__(num_blocks, config)
        self.seen: list[tuple[int, int, dict[str, float]]] = []

    def update(self, trace: Trace) -> None:
        assert trace.acts.keys() == self.observes
        read = {site: float(trace.rows(site).sum(dtype=torch.float64)) for site in sorted(self.observes)}
        self.seen.append((trace.block, trace.batch, read))

    def compute(self) -> Importance:
        return Importance(scores=[0.0] * self.num_blocks)


def test_scorers_of_different_sites_see_each_block_once() -> None:
    """Alone and together, for no sites, and for disjoint, overlapping and nested sets of sites."""
    ends = frozenset({"block_in", "block_out"})
    observed = [ends, frozenset({"block_out"}), frozenset({"mlp_act"}), frozenset({"mlp_act", "block_in"})]
    observed += [frozenset({"attn_out", "mlp_act"}), frozenset({"mlp_out"}), frozenset()]

    def reader(sites: frozenset[str]) -> Reader:
        made = Reader(BLOCKS)
        made.observes = sites
        return made

    model, batches = tiny("llama"), [batch(), padded_batch()]
    together = {str(number): reader(sites) for number, sites in enumerate(observed)}
    layerimp.score(model, batches, together)
    for sites, shared in zip(observed, together.values(), strict=True):
        alone = reader(sites)
        layerimp.score(model, batches, [alone])
        assert [at[:2] for at in shared.seen] == [(block, number) for number in range(2) for block in range(BLOCKS)]
        assert shared.seen == alone.seen
