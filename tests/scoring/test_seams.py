"""Scores of seams and of sublayers: every scorer against computations by hand, and two series against each alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layerimp_avss import AVSS
from layerimp_baselines import Angular, BlockInfluence, Depth, Perplexity, Random, RelativeMagnitude, Taylor
from layerimp_cim import CIM
from layerimp_gbis import GBIS
from layerimp_lrp import LRP, Relevance
from support.scored_by_hand import ARCHITECTURES, SILENT, states, written_out
from support.tiny import ALL, ENCODERS, EXPERTS, PARALLEL, tiny
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import layerimp
from layerimp.errors import ModelError, OptionError
from layerimp.scorer import Importance, Scorer
from layerimp.scoring.engine import fill, finished, measure, measure_sublayers
from layerimp.stats import Mean
from layerimp.steps import Step, candidates, checked_steps, left, removed_by, sublayer_units, sublayers_of
from layerimp.surgery.removal import pruned
from layerimp.sweep import Ablation, Trace
from layerimp.sweep.cache import BlockCache
from layerimp.testing import BLOCKS, batch, padded_batch

Batch = dict[str, Tensor]
BOTH = 2 * BLOCKS - 1
TOLERANCE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-10}


def text() -> list[Batch]:
    return [padded_batch((12, 5, 9)), batch(2, 7, seed=1)]


def made(cls: type[Scorer], num_blocks: int, options: Mapping[str, Any]) -> Scorer:
    return cls(num_blocks, cls.Config(**options))


def scored(
    model: Any, cls: type[Scorer], batches: list[Batch] | None = None, removed: tuple[Step, ...] = (), **options: Any
) -> Importance:
    """The blocks and the seams of a model in one pass."""
    blocks, seams = candidates(removed, BLOCKS, "all")
    stack, label = layerimp.find_blocks(model), cls.name
    return measure(
        stack,
        batches or text(),
        {label: made(cls, len(blocks), options)},
        seams={label: made(cls, len(seams), options)},
        removed=removed,
    )[label]


def places(importance: Importance, num_blocks: int = BLOCKS) -> list[tuple[int, int]]:
    """Where each of the steps of an intact model begins and ends, as numbers of sublayers."""
    parts = [sublayers_of(step) for step in importance.blocks]
    assert len(parts) == 2 * num_blocks - 1
    return [(one[0].depth, one[-1].depth + 1) for one in parts]


def rows(model: Any, architecture: str, batches: list[Batch]) -> list[Tensor]:
    """The residual stream [token, hidden] before each sublayer, over the whole set, without padding."""
    found = [[state[one["attention_mask"].bool()] for state in states(model, architecture, one)] for one in batches]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def nll(model: Any, one: Batch) -> Tensor:
    """The negative log-likelihood [target] of the next tokens, or of the predicted class."""
    logits = model(input_ids=one["input_ids"], attention_mask=one["attention_mask"]).logits
    if logits.ndim == 3:
        real = one["attention_mask"].bool()[:, 1:]
        logits, ids = logits[:, :-1][real], one["input_ids"][:, 1:][real]
    else:
        ids = logits.argmax(-1)
    return -logits.log_softmax(-1)[range(len(ids)), ids]


architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def close(found: list[float], expected: list[Any]) -> None:
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64),
        torch.stack([torch.as_tensor(one, dtype=torch.float64) for one in expected]),
        **TOLERANCE,
    )


# Steps that can be taken next.


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(num_blocks=st.integers(1, 6), choices=st.lists(st.integers(0, 99), max_size=6))
def test_candidates_are_the_neighbours_in_what_is_left(num_blocks: int, choices: list[int]) -> None:
    removed: list[Step] = []
    for choice in choices:
        row = left(removed, num_blocks)
        blocks, seams = candidates(removed, num_blocks, "all")
        parts = [[part for step in series for part in sublayers_of(step)] for series in (blocks, seams)]
        assert parts == [row, row[1:-1]]
        attention, mlp = sublayer_units(removed, num_blocks)
        assert {part for step in [*attention, *mlp] for part in sublayers_of(step)} == set(row)
        for step in [*blocks, *seams]:
            assert checked_steps([*removed, step], num_blocks)[-1] == step
        whole, none = candidates(removed, num_blocks)
        assert whole == [step for step in blocks if isinstance(step, int)]
        assert none == []
        if not row:
            break
        every = [*blocks, *seams]
        removed.append(every[choice % len(every)])
        assert len(removed_by(removed)) == 2 * len(removed)


def test_what_is_left_is_written_as_it_is_removed() -> None:
    assert candidates(["1/2"], 4, "all") == ([0, "1.attn,2.mlp", 3], ["0/1", "2/3"])
    assert candidates([2], 4, "all") == ([0, 1, 3], ["0/1", "1.mlp,3.attn"])
    assert sublayer_units([2], 3) == (["0.attn", "1.attn"], ["0.mlp", "1.mlp"])


# Scores that read the stream.


@architectures
def test_geometry_of_the_stream(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    at = rows(model, architecture, text())
    influence = scored(model, BlockInfluence)
    close(influence.scores, [(1 - cosine_similarity(at[a], at[b])).mean() for a, b in places(influence)])
    relative = scored(model, RelativeMagnitude)
    close(relative.scores, [((at[b] - at[a]).norm(dim=-1) / at[b].norm(dim=-1)).mean() for a, b in places(relative)])


@architectures
def test_windows_at_both_parities(architecture: str) -> None:
    """A window of n is any 2n neighbouring sublayers; a step has the least of those of its own parity that hold it."""
    model = tiny(architecture, dtype=torch.float64)
    at = rows(model, architecture, text())
    for window in (1, 2, 3):
        found = scored(model, Angular, window=window, tokens="all")
        turned = [
            (cosine_similarity(at[a], at[a + 2 * window]).arccos() / math.pi).mean()
            for a in range(2 * BLOCKS - 2 * window + 1)
        ]
        close(found.spans[window], turned)
        least = [
            min(turned[start] for start in range(a % 2, len(turned), 2) if start <= a and a + 2 <= start + 2 * window)
            for a, _ in places(found)
        ]
        close(found.scores, least)


@architectures
@pytest.mark.parametrize("site", ["block_out", "block_delta"])
def test_avss_has_shares_of_its_own_in_each_series(architecture: str, site: Any) -> None:
    model = tiny(architecture, dtype=torch.float64)
    at = rows(model, architecture, text())
    found = scored(model, AVSS, site=site)
    acts = [at[b] if site == "block_out" else at[b] - at[a] for a, b in places(found)]
    variance = torch.stack([act.var(correction=0) for act in acts])
    inactive = [(act.abs() < 0.1 * act.square().mean(dim=-1, keepdim=True).sqrt()).double().mean() for act in acts]
    avss = variance / torch.stack(inactive)
    for parity in (0, 1):  # blocks and seams take turns
        close(found.columns["variance"][parity::2], list(variance[parity::2]))
        close(found.scores[parity::2], list(avss[parity::2] / avss[parity::2].sum()))


# Scores that read gradients.


def gradients(model: Any, architecture: str, one: Batch) -> tuple[list[Tensor], list[Tensor], int]:
    """The stream before each sublayer, and the gradient of the loss there, on real tokens; and how many targets."""
    with written_out(model, architecture) as stream, torch.enable_grad():
        loss = nll(model, one)
        order = sorted(stream.at)
        found = torch.autograd.grad(loss.sum(), [stream.at[place] for place in order])
    real = one["attention_mask"].bool()
    return [stream.at[place].detach()[real] for place in order], [one[real] for one in found], len(loss)


@architectures
@pytest.mark.parametrize("variant", ["grad_x_delta", "grad_norm", "grad_x_act"])
def test_gradients_between_the_halves(architecture: str, variant: Any) -> None:
    model = tiny(architecture, dtype=torch.float64)
    found = scored(model, GBIS, variant=variant)
    totals, count = torch.zeros(BOTH, dtype=torch.float64), 0
    slopes = torch.zeros(BOTH, dtype=torch.float64)
    for one in text():
        at, slope, targets = gradients(model, architecture, one)
        count += targets
        for index, (a, b) in enumerate(places(found)):
            values = {
                "grad_x_delta": (at[b] - at[a]) * slope[b],
                "grad_norm": slope[a].norm(dim=-1),
                "grad_x_act": at[a] * slope[a],
            }[variant]
            totals[index] += values.abs().sum()
            slopes[index] += values.sum()
    close(found.scores, list(totals / count))
    if variant == "grad_x_delta":
        close(found.columns["slope"], list(slopes / count))


@architectures
def test_weights_of_the_two_halves(architecture: str) -> None:
    """A seam has the weights of an MLP and of the next attention; each weight counts once in either series."""
    model = tiny(architecture, dtype=torch.float64)
    losses = torch.cat([nll(model, one) for one in text()])
    losses.sum().backward()

    def of(depth: int) -> float:
        block, mlp = layerimp.find_blocks(model)[depth // 2], depth % 2
        names = {"gpt2": "mlp.", "bert": ("intermediate.", "output.")}.get(architecture, "mlp.")
        return sum(
            float((p.detach() * p.grad).abs().sum())
            for name, p in block.named_parameters()
            if p.ndim > 1 and name.startswith(names) == bool(mlp)
        )

    weights = [of(depth) / len(losses) for depth in range(2 * BLOCKS)]
    model.zero_grad()
    found = scored(model, Taylor)
    close(found.scores, [weights[a] + weights[b - 1] for a, b in places(found)])
    halves = {"taylor": Taylor(BLOCKS)}, {"taylor": Taylor(BLOCKS)}
    close(measure_sublayers(layerimp.find_blocks(model), text(), *halves)["taylor"].scores, weights)


@architectures
def test_relevance_between_the_halves(architecture: str) -> None:
    """The rules are those of the scorer; the stream and its gradient are read by hand."""
    model = tiny(architecture, dtype=torch.float64).requires_grad_(False)
    stack, found = layerimp.find_blocks(model), scored(model, LRP)
    totals, logits = torch.zeros(BOTH, dtype=torch.float64), 0.0
    for one in text():
        with written_out(model, architecture) as stream, torch.enable_grad(), Relevance().rules(stack):
            stream.changes[0] = lambda state: state.detach().requires_grad_()
            out = model(input_ids=one["input_ids"], attention_mask=one["attention_mask"]).logits
            if out.ndim == 3:
                real = one["attention_mask"].bool()[:, 1:]
                own = out[:, :-1].gather(-1, one["input_ids"][:, 1:, None])[..., 0][real]
            else:
                own = out.amax(dim=-1)
            order = sorted(stream.at)
            slopes = torch.autograd.grad(own.sum(), [stream.at[place] for place in order])
        logits += float(own.detach().abs().sum())
        mask = one["attention_mask"].bool()
        for index, (a, b) in enumerate(places(found)):
            step = stream.at[b].detach() - stream.at[a].detach()
            totals[index] += (step * slopes[b])[mask].abs().sum()
    close(found.scores, list(totals / logits))
    assert found.notes == ()


@pytest.mark.parametrize(
    "architecture", ["llama", "gpt2", "opt", "bert", "distilbert", "gemma3_text", "bloom", "mixtral"]
)
def test_relevance_is_conserved_inside_blocks(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float32 if architecture == "mixtral" else torch.float64)
    stack, seams = layerimp.find_blocks(model), LRP(BLOCKS - 1)
    measure(stack, text(), {"lrp": LRP(BLOCKS)}, seams={"lrp": seams})
    allowed = {"bloom": 0.1, "mixtral": 1e-4}.get(architecture, 1e-7)  # RMS norms compute in float32
    assert max(seams.missing()) < allowed
    halves = {"lrp": LRP(BLOCKS)}, {"lrp": LRP(BLOCKS)}
    measure_sublayers(stack, text(), *halves)
    assert max(max(one["lrp"].missing()) for one in halves) < allowed


# Scores that change a step and look at the prediction.


def without(model: Any, architecture: str, begin: int, end: int, factor: float | Tensor, one: Batch) -> Tensor:
    """The loss if what is added between two places is multiplied by a factor, or replaced."""
    with written_out(model, architecture) as stream, torch.no_grad():

        def change(state: Tensor) -> Tensor:
            added = factor if isinstance(factor, Tensor) else factor * (state - stream.at[begin])
            return stream.at[begin] + added

        stream.changes[end] = change
        return nll(model, one)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_seams_are_left_out(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    found = scored(model, Perplexity)
    with torch.no_grad():
        intact = torch.cat([nll(model, one) for one in text()]).mean()
    expected = [
        torch.cat([without(model, architecture, a, b, 0, one) for one in text()]).mean() - intact
        for a, b in places(found)
    ]
    close(found.scores, expected)
    for step, score in zip(found.blocks, found.scores, strict=True):  # and as surgery leaves them out
        with pruned(model, [step]), torch.no_grad():
            close([score], [torch.cat([nll(model, one) for one in text()]).mean() - intact])


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_an_encoder_s_seams_are_left_out(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0])
    one = padded_batch((12, 5, 9)) | {"labels": labels}
    found = scored(model, Perplexity, [one])

    def loss() -> Tensor:
        with torch.no_grad():
            logits = model(input_ids=one["input_ids"], attention_mask=one["attention_mask"]).logits
        return -logits.log_softmax(-1)[range(3), labels].mean()

    intact = loss()
    for step, score in zip(found.blocks, found.scores, strict=True):
        with pruned(model, [step]):
            close([score], [loss() - intact])


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_probes_of_seams(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    found = scored(model, CIM)
    at = rows(model, architecture, text())
    for index, (a, b) in enumerate(places(found)):
        mean = (at[b] - at[a]).mean(dim=0)
        values = torch.stack(
            [
                torch.cat([-without(model, architecture, a, b, probe, one) for one in text()]).exp()
                for probe in (0.0, 0.5, 1.0, mean)
            ]
        )
        close([found.scores[index]], [(values.amax(dim=0) - values.amin(dim=0)).mean()])


def test_an_attention_that_is_known_is_not_run_again() -> None:
    """Blocks before the changed seam return stored outputs; the attention of the block where it ends does not run."""
    model, one = tiny("llama"), batch(3, 12)
    calls: list[tuple[str, int]] = []
    for index, block in enumerate(model.model.layers):
        for name, module in (("attn", block.self_attn.o_proj), ("mlp", block.mlp.down_proj)):
            module.register_forward_hook(
                lambda _m, args, _out, call=(name, index): calls.append(call) if len(args[0]) == 3 else None
            )
    scored(model, Perplexity, [one])
    # All blocks once; after block b the later blocks; after the seam b/b+1 the MLP of b + 1 and the later blocks.
    for index in range(BLOCKS):
        assert calls.count(("attn", index)) == 1 + index + max(0, index - 1)
        assert calls.count(("mlp", index)) == 1 + index + index


@pytest.mark.parametrize("architecture", sorted(ALL.keys() - PARALLEL))
def test_two_sweeps_agree_between_the_halves(architecture: str) -> None:
    """In every architecture: the slope of the loss, from its gradient and from two changes of what a seam adds."""
    single = architecture in EXPERTS
    model = tiny(architecture, dtype=torch.float32 if single else torch.float64)
    one = [batch(3, 12) | ({"labels": torch.tensor([0, 1, 1])} if architecture in ENCODERS else {})]
    found = scored(model, GBIS, one)
    step = 1e-6 if architecture == "opt" else 1e-3  # a rectifier has kinks; RMS norms compute in float32
    seams = Slope(BLOCKS - 1, step=step)
    measure(layerimp.find_blocks(model), one, {"slope": Slope(BLOCKS, step=step)}, seams={"slope": seams})
    expected = torch.tensor(found.columns["slope"][1::2], dtype=torch.float64)
    torch.testing.assert_close(
        seams.slope.value(), expected, rtol=0.02 if single else 2e-3, atol=1e-3 if single else 1e-5
    )


class Slope(Scorer):
    """Central differences of the loss in the factor on what a block adds."""

    name = "slope"

    def __init__(self, num_blocks: int, config: Any = None, step: float = 1e-3) -> None:
        super().__init__(num_blocks, config)
        self.sweep = Ablation(frozenset({1 - step, 1 + step}))
        self.less, self.more = (Ablation.site(factor) for factor in (1 - step, 1 + step))
        self.observes = frozenset({self.less, self.more})
        self.step, self.slope = step, Mean(num_blocks)

    def update(self, trace: Trace) -> None:
        less, more = (trace.rows(site).double() for site in (self.less, self.more))
        self.slope.add(trace.block, (less - more) / (2 * self.step))

    def merge(self, other: Slope) -> None:
        self.slope.merge(other.slope)

    def compute(self) -> Importance:
        return Importance(scores=self.slope.value().tolist())


# Both series, and what is left after removals.

EVERY: dict[str, tuple[type[Scorer], dict[str, Any]]] = {
    "avss": (AVSS, {"site": "block_delta"}),
    "paper": (AVSS, {"variant": "paper"}),
    "block-influence": (BlockInfluence, {}),
    "angular": (Angular, {"window": 2}),
    "relative-magnitude": (RelativeMagnitude, {}),
    "gbis": (GBIS, {}),
    "taylor": (Taylor, {}),
    "lrp": (LRP, {}),
    "perplexity": (Perplexity, {}),
    "cim": (CIM, {}),
    "depth": (Depth, {}),
    "random": (Random, {}),
}


def all_of(num_blocks: int) -> dict[str, Scorer]:
    return {label: made(cls, num_blocks, options) for label, (cls, options) in EVERY.items()}


@architectures
def test_both_series_in_one_pass_are_each_alone(architecture: str) -> None:
    model = tiny(architecture)
    stack = layerimp.find_blocks(model)
    both = measure(stack, text(), all_of(BLOCKS), seams=all_of(BLOCKS - 1))
    for label in EVERY:
        blocks = measure(stack, text(), {label: all_of(BLOCKS)[label]})[label]
        # Blocks are scored by a scorer that does not look at the model, so that the seams are alone in their pass.
        seams = measure(stack, text(), {label: Depth(BLOCKS)}, seams={label: all_of(BLOCKS - 1)[label]})[label]
        assert both[label].blocks == [0, "0/1", 1, "1/2", 2, "2/3", 3]
        assert both[label].scores[::2] == blocks.scores
        assert both[label].scores[1::2] == seams.scores[1::2]
        assert {name: values[::2] for name, values in both[label].columns.items()} == blocks.columns


@pytest.mark.parametrize("removed", [("1/2",), (2,), ("0/1", 2), ("2/3", "1/2")])
@pytest.mark.parametrize("architecture", ["llama", "bert", "gpt2", "gemma3_text"])
def test_what_is_left_is_scored_as_in_the_pruned_model(architecture: str, removed: tuple[Step, ...]) -> None:
    """Blocks of what is left are the blocks of the pruned model, and its seams are theirs."""
    model = tiny(architecture, dtype=torch.float64)
    stack, rest = layerimp.find_blocks(model), BLOCKS - len(removed)
    one, two, three, four = (
        {label: made(EVERY[label][0], count, EVERY[label][1]) for label in EVERY if rest > 2 or label != "angular"}
        for count in (rest, rest - 1, rest, rest - 1)
    )
    past = measure(stack, text(), one, seams=two, removed=removed)
    with pruned(model, list(removed)):
        expected = measure(layerimp.find_blocks(model), text(), three, seams=four)
    blocks, seams = candidates(removed, BLOCKS, "all")
    for label, importance in expected.items():
        assert past[label].blocks[::2] == blocks
        assert past[label].blocks[1::2] == seams
        close(past[label].scores, importance.scores)
        assert past[label].columns.keys() == importance.columns.keys()


def test_shards_merge_in_each_series() -> None:
    model = tiny("llama", dtype=torch.float64)
    stack = layerimp.find_blocks(model)
    labels = [label for label in EVERY if label != "cim"]  # the mean over the whole set is known to no shard

    def filled(batches: list[Batch]) -> Any:
        chosen = ({label: all_of(count)[label] for label in labels} for count in (BLOCKS, BLOCKS - 1))
        return fill(stack, batches, next(chosen), seams=next(chosen))

    first, second, whole = filled(text()[:1]), filled(text()[1:]), filled(text())
    for label in labels:
        merged, expected = finished(label, [first[label], second[label]]), finished(label, [whole[label]])
        close(merged.scores, expected.scores)
        assert merged.blocks == expected.blocks


def test_a_cache_changes_nothing() -> None:
    model = tiny("llama", num_hidden_layers=6)
    stack, batches = layerimp.find_blocks(model), [batch(3, 12), padded_batch((12, 5, 9), seed=1)]
    cache, runs = BlockCache(stack), []
    model.model.layers[0].mlp.register_forward_hook(
        lambda _m, args, _out: runs.append(1) if args[0].shape[:2] == (3, 12) else None
    )
    for label in ("block-influence", "angular", "perplexity", "cim", "gbis"):
        for removed in ((), (3,), (3, "4/5"), ("4/5",), ("4/5", "1/2")):
            blocks, seams = candidates(removed, 6, "all")
            found = []
            for kept in (None, cache):
                one, two = ({label: all_of(len(series))[label]} for series in (blocks, seams))
                found.append(measure(stack, batches, one, seams=two, removed=removed, cache=kept)[label])
            assert found[0] == found[1]
    runs.clear()
    one, two = ({"b": BlockInfluence(count)} for count in (4, 3))
    measure(stack, batches, one, seams=two, removed=("4/5", "1/2"), cache=cache)
    assert not runs  # block 0 is not computed: its output and its middle are known
    plain = measure(stack, batches, {"b": BlockInfluence(6)}, cache=BlockCache(stack))
    assert plain == measure(stack, batches, {"b": BlockInfluence(6)})


def test_seams_after_a_pass_of_blocks_alone() -> None:
    """A block that is stored without its middle is computed if the middle is read."""
    model = tiny("llama")
    stack, cache = layerimp.find_blocks(model), BlockCache(layerimp.find_blocks(model))
    measure(stack, text(), {"b": BlockInfluence(BLOCKS)}, cache=cache)
    found = measure(stack, text(), {"b": BlockInfluence(BLOCKS)}, seams={"b": BlockInfluence(BLOCKS - 1)}, cache=cache)
    assert found == {"b": scored(model, BlockInfluence)}


# Properties that hold for any scores.


@pytest.mark.parametrize("architecture", SILENT)
@pytest.mark.parametrize("seam", range(BLOCKS - 1))
def test_a_seam_that_adds_nothing_scores_least(architecture: str, seam: int) -> None:
    model = tiny(architecture, dtype=torch.float64)
    stack = layerimp.find_blocks(model)
    for index, path in ((seam + 1, SILENT[architecture][0]), (seam, SILENT[architecture][1])):
        for parameter in stack[index].get_submodule(path).parameters():
            nn.init.zeros_(parameter)
    scorers = {label: one for label, one in all_of(BLOCKS - 1).items() if one.identity_scores_least}
    assert len(scorers) == 8
    blocks = {label: all_of(BLOCKS)[label] for label in scorers}
    for label, found in measure(stack, [padded_batch()], blocks, seams=scorers).items():
        scores = found.scores[1::2]
        assert abs(scores[seam]) == min(map(abs, scores)), (label, scores)
        if label in ("perplexity", "cim", "gbis", "lrp", "taylor"):
            assert scores[seam] == 0, label


@pytest.mark.parametrize("silent", [0, 1])
@pytest.mark.parametrize("architecture", SILENT)
def test_a_model_with_a_silent_half_is_divided(architecture: str, silent: int) -> None:
    """If the halves of the first block cannot be found, another block of the same structure shows them."""
    model = tiny(architecture, dtype=torch.float64)
    path = SILENT[architecture][silent]
    for parameter in layerimp.find_blocks(model)[0].get_submodule(path).parameters():
        nn.init.zeros_(parameter)
    found = measure_sublayers(
        layerimp.find_blocks(model), text(), {"b": BlockInfluence(BLOCKS)}, {"b": BlockInfluence(BLOCKS)}
    )["b"]
    assert [step for step, score in zip(found.blocks, found.scores, strict=True) if score == 0] == [
        ("0.attn", "0.mlp")[silent]
    ]


@pytest.mark.parametrize("architecture", SILENT)
def test_a_loss_moves_as_its_slope_says(architecture: str) -> None:
    """By central differences: the signed sum of GBIS at a seam is the slope of the loss in what the seam adds."""
    model = tiny(architecture, dtype=torch.float64)
    found = scored(model, GBIS)
    for index, (a, b) in enumerate(places(found)):
        up, down = (
            torch.cat([without(model, architecture, a, b, 1 + step, one) for one in text()]).mean()
            for step in (1e-3, -1e-3)  # RMS norms compute in float32
        )
        slope = float((up - down) / 2e-3)
        assert found.columns["slope"][index] == pytest.approx(slope, rel=1e-3, abs=1e-5)


# Attention and MLP separately.


@architectures
def test_attention_and_mlp_apart(architecture: str) -> None:
    model = tiny(architecture, dtype=torch.float64)
    stack, at = layerimp.find_blocks(model), rows(model, architecture, text())
    labels = ["block-influence", "relative-magnitude", "gbis", "lrp", "cim", "perplexity", "avss"]
    attention, mlp = ({label: all_of(BLOCKS)[label] for label in labels} for _ in range(2))
    found = measure_sublayers(stack, text(), attention, mlp)
    for importance in found.values():
        assert importance.blocks == [f"{block}.{part}" for block in range(BLOCKS) for part in ("attn", "mlp")]
    ends = [(place, place + 1) for place in range(2 * BLOCKS)]
    close(found["block-influence"].scores, [(1 - cosine_similarity(at[a], at[b])).mean() for a, b in ends])
    if architecture != "bert":
        with torch.no_grad():
            intact = torch.cat([nll(model, one) for one in text()]).mean()
        close(
            found["perplexity"].scores,
            [
                torch.cat([without(model, architecture, a, b, 0, one) for one in text()]).mean() - intact
                for a, b in ends
            ],
        )
    total, count = torch.zeros(2 * BLOCKS, dtype=torch.float64), 0
    for one in text():
        states, slopes, targets = gradients(model, architecture, one)
        count += targets
        total += torch.stack([((states[b] - states[a]) * slopes[b]).abs().sum() for a, b in ends])
    close(found["gbis"].scores, list(total / count))


def test_what_is_not_in_a_sublayer_is_refused() -> None:
    stack = layerimp.find_blocks(tiny("llama"))
    for cls, options, said in (
        (AVSS, {}, r"scorer 'x' cannot score attention and MLP apart: it reads mlp_act, which an attention or an MLP"),
        (Angular, {"window": 2}, "several neighbours"),
        (Random, {}, "it looks at nothing"),
    ):
        one, two = ({"x": made(cls, BLOCKS, options)} for _ in range(2))
        with pytest.raises(ModelError, match=said):
            measure_sublayers(stack, text(), one, two)


# Refusals.


@pytest.mark.parametrize("site", ["mlp_act", "attn_out", "mlp_out"])
def test_a_copy_of_a_block_s_score_is_refused(site: str) -> None:
    said = (
        f"scorer 'avss' cannot score seams: it reads {site} alone, the same for a seam as for a block beside it; site="
    )
    with pytest.raises(ModelError, match=said):
        scored(tiny("llama"), AVSS, site=site)


@pytest.mark.parametrize("architecture", sorted(PARALLEL))
@pytest.mark.parametrize("cls", [BlockInfluence, GBIS, Perplexity])
def test_parallel_branches_have_no_seams(architecture: str, cls: type[Scorer]) -> None:
    assert architecture in ALL
    with pytest.raises(ModelError, match=r"cannot be divided into attention and MLP: the two are parallel branches$"):
        scored(tiny(architecture), cls)


def test_a_gradient_that_is_not_all_there_is_is_refused() -> None:
    """The MLP half reads a copy of the middle, and adds to the middle itself."""
    model = tiny("llama", dtype=torch.float64)
    for block in model.model.layers:

        def forward(x: Tensor, block: Any = block, **kwargs: Any) -> Tensor:
            middle = x + block.self_attn(hidden_states=block.input_layernorm(x), **kwargs)[0]
            return middle + block.mlp(block.post_attention_layernorm(middle.clone()))

        block.forward = forward
    assert scored(model, BlockInfluence) == scored(tiny("llama", dtype=torch.float64), BlockInfluence)
    with pytest.raises(ModelError, match=r"block 0 of LlamaForCausalLM cannot be told: the MLP adds to another tensor"):
        scored(model, GBIS)


def test_a_middle_that_is_overwritten_is_refused() -> None:
    model = tiny("llama", dtype=torch.float64)
    for block in model.model.layers:

        def forward(x: Tensor, block: Any = block, **kwargs: Any) -> Tensor:
            middle = x + block.self_attn(hidden_states=block.input_layernorm(x), **kwargs)[0]
            middle += block.mlp(block.post_attention_layernorm(middle))
            return middle

        block.forward = forward
    with pytest.raises(ModelError, match="writes into the hidden states between its attention and its MLP"):
        scored(model, BlockInfluence)


def test_wrong_numbers_are_refused() -> None:
    stack = layerimp.find_blocks(tiny("llama"))
    with pytest.raises(OptionError, match=r"scorer 'b' was made for 4 blocks; there are 3 \(seams\)"):
        measure(stack, text(), {"b": BlockInfluence(BLOCKS)}, seams={"b": BlockInfluence(BLOCKS)})
    with pytest.raises(OptionError, match="scorer 'c' is to score the seams, and not the blocks"):
        measure(stack, text(), {"b": BlockInfluence(BLOCKS)}, seams={"c": BlockInfluence(BLOCKS - 1)})


# One result.


def test_notes_and_draws_name_seams() -> None:
    model = tiny("llama")
    found = scored(model, AVSS, site="block_out", epsilon=1e-9)
    assert [note.split(":")[0] for note in found.notes] == [
        "sparsity was floored at 1e-06 in 4 of 4 blocks (0, 1, 2, 3)",
        "seams",
    ]
    assert "in 3 of 3 blocks (0/1, 1/2, 2/3)" in found.notes[1]
    random = scored(model, Random)
    assert random.scores[::2] == measure(layerimp.find_blocks(model), text(), {"r": Random(BLOCKS)})["r"].scores
    assert not set(random.scores[::2]) & set(random.scores[1::2])
    depth = scored(model, Depth)
    assert depth.weakest_first()[-2:] in (["2/3", 3], [3, "2/3"])


def test_the_python_interface_scores_seams() -> None:
    model = tiny("llama")
    found = layerimp.score(model, text(), ["block-influence", "perplexity"], cuts="all")
    assert found["perplexity"] == scored(model, Perplexity)
    assert found["block-influence"].blocks == [0, "0/1", 1, "1/2", 2, "2/3", 3]
    assert layerimp.score(tiny("llama", num_hidden_layers=1), text(), ["depth"], cuts="all")["depth"].blocks == [0]


@pytest.mark.parametrize("cls", [BlockInfluence, GBIS, Perplexity, Taylor, LRP])
def test_the_model_is_left_as_it_was(cls: type[Scorer]) -> None:
    model = tiny("llama").train()
    before = [set(vars(module)) for module in model.modules()]
    scored(model, cls, removed=("1/2",))
    assert [set(vars(module)) for module in model.modules()] == before
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
