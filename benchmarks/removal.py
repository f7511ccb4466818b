"""One architecture on trial: are its blocks found, scored and removed exactly?

The expected result is computed without layerimp: by the original model, with the removed blocks bypassed. It is
compared with the checkpoint, loaded with the stock class.
"""

from __future__ import annotations

import inspect
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
import zoo
from torch import Tensor
from transformers import PreTrainedModel

import layerimp
from layerimp.blocks.input_forms import Inputs
from layerimp.blocks.modalities import IMAGE, MODALITIES, made_up
from layerimp.errors import LayerimpError
from layerimp.registry.catalog import registry

Kind = Literal["exact", "refused", "wrong"]
TOLERANCE = 2e-5
"""The tolerance for logits, relative to the largest, in float32 after six blocks."""
ROUNDING = 1e-4
"""The largest difference between generation with and without a cache that counts as rounding."""
TOKENS, PROMPT, NEW = 24, 9, 6
UNSTABLE = frozenset({"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype"})
"""Fields of a configuration that say nothing about how the model computes."""


@dataclass
class Case:
    """A removal and its outcome."""

    blocks: list[int]
    outcome: Kind
    said: str = ""


@dataclass
class Trial:
    """The result for one architecture.

    Attributes:
        kind: The model type.
        head: `causal`, `classifier` or `image`.
        built: Why no tiny model could be built; empty if one was built.
        path: The path of the blocks.
        blocks: The number of blocks.
        cases: The removals of blocks.
        scorers: The message of each scorer that cannot score the model, or uses a fallback, by scorer.
        inputs: For what the model takes beside text, whether an input could be made up.
    """

    kind: str
    head: str
    built: str = ""
    path: str = ""
    blocks: int = 0
    cases: list[Case] = field(default_factory=list)
    scorers: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, bool] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        if self.built:
            return "not built"
        if any(said.startswith("crash") for said in self.scorers.values()):
            return "wrong"
        return _outcome(self.cases)


def _outcome(cases: Sequence[Case]) -> str:
    kinds = {case.outcome for case in cases}
    if "wrong" in kinds or not kinds:
        return "wrong"
    return "in part" if len(kinds) == 2 else kinds.pop()


def try_all(kind: str, head: str, *, scorers: Sequence[str] | None = None, cases: Sequence[list[int]] = ()) -> Trial:
    """Try an architecture with all scorers and all removals, or with given ones."""
    trial = Trial(kind, head)
    try:
        with torch.no_grad():
            model = zoo.build(kind, head)
            if head != "image":
                logits(model)
    except Exception as error:  # building from a tiny configuration can fail in any way
        trial.built = first_line(error)
        return trial
    try:
        stack = layerimp.find_blocks(model)
    except LayerimpError as error:
        trial.cases.append(Case([], "refused", str(error)))
        return trial
    trial.path, trial.blocks = stack.path, len(stack)
    if head == "image":
        with suppress(LayerimpError):  # every removal is refused for the same reason
            trial.inputs = {
                modality.name: made_up(stack, modality) is not None
                for modality in MODALITIES
                if modality.taken_by(model)
            }
    try:
        before = logits(model)
    except Exception:  # it reads no text without images
        trial.cases.append(try_removal(lambda: zoo.build(kind, head), head, [0]))
        return trial
    for name in registry().names("scorer") if scorers is None else scorers:
        if said := scored(model, name):
            trial.scorers[name] = said
    if off(before, logits(model)):
        trial.cases.append(Case([], "wrong", "scoring changed the model"))
    for blocks in cases or removals(len(stack)):
        trial.cases.append(try_removal(lambda: zoo.build(kind, head), head, blocks))
    return trial


def removals(count: int) -> list[list[int]]:
    """The first block, a middle one, the last, several, all but one."""
    middle = count // 2
    cases: list[list[int]] = [[0], [middle], [count - 1], [0, middle, count - 1]]
    cases.append([i for i in range(count) if i != middle - 1])
    return [case for i, case in enumerate(cases) if case not in cases[:i] and 0 < len(case) < count]


def scored(model: PreTrainedModel, scorer: str) -> str:
    """Return the message of a scorer that cannot score the model, or reads another site; empty if all is well."""
    ids, mask = batch(model)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            importance = layerimp.score(model, [{"input_ids": ids, "attention_mask": mask}], [scorer])[scorer]
    except LayerimpError as error:
        return f"refuses: {error}"
    except Exception as error:
        return f"crash: {first_line(error)}"
    if not all(map(math.isfinite, importance.scores)):
        return "crash: a score is not finite"
    messages = [*importance.notes, *(str(w.message) for w in caught if issubclass(w.category, UserWarning))]
    return " ".join(messages[0].split()) if messages and scorer in ("lrp", "avss") else ""


def try_removal(build: Callable[[], PreTrainedModel], head: str, blocks: list[int]) -> Case:
    """Remove blocks, save, load with the stock class, and compare with the expected result."""
    model = build()
    stack = layerimp.find_blocks(model)
    count, path = len(stack), stack.path
    try:
        rows = rows_beside_text(stack) if head == "image" else {}
    except LayerimpError:  # the removal is refused for the same reason
        rows = {}
    expected = None
    with suppress(Exception), bypassing([stack[index] for index in blocks]):  # some blocks cannot be bypassed by a hook
        expected = observed(model, rows)
    original = model.config.to_dict()
    with tempfile.TemporaryDirectory() as folder:
        try:
            layerimp.prune(model, blocks)
            pruned = observed(model, rows)
            directory = layerimp.save(model, None, Path(folder) / "out")
        except LayerimpError as error:
            return Case(blocks, "refused", str(error))
        except Exception as error:
            return Case(blocks, "wrong", f"{type(error).__name__}: {first_line(error)}")
        try:
            auto = getattr(transformers, zoo.HEADS[head][0])
            reloaded, info = auto.from_pretrained(directory, output_loading_info=True)
            wrong = loaded_wrong(info, path, reloaded.eval(), count - len(blocks))
            wrong = wrong or stale_fields(original, json.loads((directory / "config.json").read_text()), count)
            wrong = wrong or differences(model, reloaded)
            wrong = wrong or unlike(expected, {"in memory": pruned, "reloaded": observed(reloaded, rows)})
        except Exception as error:
            wrong = f"{type(error).__name__}: {first_line(error)}"
        return Case(blocks, "wrong" if wrong else "exact", wrong)


def loaded_wrong(info: Mapping[str, Any], path: str, reloaded: PreTrainedModel, left: int) -> str:
    """Describe what is wrong with how a checkpoint loads; empty if nothing is."""
    for kind, keys in info.items():
        if keys:
            return f"{kind} on loading: {sorted(map(str, keys))[0]}"
    count = len(reloaded.get_submodule(path))
    return f"{count} blocks where {left} are left" if count != left else ""


def differences(model: PreTrainedModel, reloaded: PreTrainedModel) -> str:
    """Describe how a reloaded model differs from the saved one in class, keys or configuration; empty if in none."""
    if type(reloaded) is not type(model):
        return f"loads back as {type(reloaded).__name__}"
    if strange := set(model.state_dict()).symmetric_difference(reloaded.state_dict()):
        return f"the key {sorted(strange)[0]} is not in both"
    before, after = (_comparable(m.config.to_dict()) for m in (model, reloaded))
    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name):
            return f"the configuration's {name} is {after.get(name)} after loading, {before.get(name)} before"
    return ""


def unlike(expected: Mapping[str, Observed] | None, models: Mapping[str, Mapping[str, Observed]]) -> str:
    """Describe how pruned models, by where they are, differ from the expected one; empty if they do not."""
    if expected is None:
        return "nobody knows what is expected: hooks cannot go past these blocks"
    for where, outputs in models.items():
        for what, wanted in expected.items():
            if difference := wanted.unlike(outputs[what], f"{where}{what}"):
                return difference
    return ""


def rows_beside_text(stack: layerimp.BlockStack) -> dict[str, Inputs]:
    """Rows of text with one and with two images, with a video and with audio, by their description."""
    taken = [modality for modality in MODALITIES if modality.taken_by(stack.model)]
    rows = {f" with {modality.phrase}": made_up(stack, modality) for modality in taken}
    if IMAGE in taken:
        rows[" with two images"] = made_up(stack, IMAGE, 2)
    return {what: inputs for what, inputs in rows.items() if inputs is not None}


def observed(model: PreTrainedModel, rows: Mapping[str, Inputs]) -> dict[str, Observed]:
    """The outputs of a model for text alone, and for rows with images."""
    return {"": Observed.of(model), **{what: Observed.of(model, inputs) for what, inputs in rows.items()}}


def stale_fields(original: dict[str, Any], saved: dict[str, Any], count: int) -> str:
    """Name a per-layer list that was not shortened, also in the language model's part; empty if there is none."""
    for name, value in original.items():
        left = saved.get(name)
        if name == "text_config" and isinstance(left, dict) and (stale := stale_fields(value, left, count)):
            return stale
        listed = isinstance(value, list | tuple) and len(value) == count and "layer" in name
        if listed and isinstance(left, list) and len(left) == count:
            return f"the configuration's {name} is as long as before"
    return ""


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
    return _stable(plain)


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stable(inner) for name, inner in value.items() if name not in UNSTABLE}
    return value


@dataclass
class Observed:
    """The outputs of a model: logits of a padded batch, and greedy generation with and without a cache.

    Attributes:
        logits: [batch, seq, vocab], or [batch, class].
        plain: The logits [step, vocab] of generated tokens, without a cache; None if the model does not generate.
        cached: The same with a cache; None if the model has none, or gives other results with it.
    """

    logits: Tensor
    plain: Tensor | None
    cached: Tensor | str | None

    @classmethod
    def of(cls, model: PreTrainedModel, inputs: Inputs | None = None) -> Observed:
        """Observe a model on the batch of text, or on a row with images."""
        values = logits(model) if inputs is None else logits_of(model, inputs)
        if not model.can_generate():
            return cls(values, None, None)
        try:
            plain = generated(model, inputs, use_cache=False)
        except Exception:  # some stock models cannot
            return cls(values, None, None)
        try:
            cached: Tensor | str = generated(model, inputs, use_cache=True)
        except Exception as error:
            cached = f"cached generation fails: {first_line(error)}"
        return cls(values, plain, cached)

    def unlike(self, other: Observed, where: str) -> str:
        """Describe how another model differs from this one, which is the expected result; empty if it does not.

        The expected generation is the one without a cache, unless the original model itself gives other results with
        a cache: then it is the one with a cache.
        """
        if difference := off(self.logits, other.logits):
            return f"logits {where} are off by {difference:.1e}"
        if self.plain is None or other.plain is None:
            return ""
        if difference := off(self.plain, other.plain):
            return f"generated logits {where} are off by {difference:.1e}"
        if isinstance(other.cached, str):
            return "" if isinstance(self.cached, str) else f"{where}, {other.cached}"
        assert other.cached is not None
        if not off(self.plain, other.cached):
            return ""
        if isinstance(self.cached, Tensor):
            # Rounding can be as large as between the two ways in which the original model itself computes.
            own, between = distance(self.plain, self.cached), distance(self.cached, other.cached)
            if between <= TOLERANCE or (own < ROUNDING and between <= 2 * own):
                return ""
        return f"cached generation {where} is off by {off(self.plain, other.cached):.1e}"


def off(expected: Tensor, actual: Tensor) -> float:
    """Return how much logits differ, relative to the largest; 0 if the difference is rounding."""
    difference = distance(expected, actual)
    return 0.0 if difference <= TOLERANCE else difference


def distance(expected: Tensor, actual: Tensor) -> float:
    """Return how much logits differ, relative to the largest."""
    if expected.shape != actual.shape or not expected.isfinite().all():
        return float("inf")
    return float((expected - actual).abs().max() / expected.abs().max())


def batch(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Ids and mask [batch, seq] of two rows, of which the second is padded; longer than any window."""
    ids = torch.randint(3, 79, (2, TOKENS), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[1, TOKENS - 7 :] = 0
    if isinstance(
        eos := getattr(model.config.get_text_config(), "eos_token_id", None), int
    ):  # some classifiers read it
        ids[0, -1] = ids[1, TOKENS - 8] = eos
    return torch.where(mask.bool(), ids, 0), mask


def logits(model: PreTrainedModel) -> Tensor:
    """Return the batch's logits at real tokens, or of its rows. Rows are run one by one if padding is not supported."""
    ids, mask = batch(model)
    values = logits_of(model, {"input_ids": ids, "attention_mask": mask})
    return values[mask.bool()] if values.ndim == 3 and values.shape[:2] == mask.shape else values


def logits_of(model: PreTrainedModel, inputs: Inputs) -> Tensor:
    """Return the logits for some inputs, without a cache."""
    cache = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        values: Tensor = model(**inputs, **cache).logits
    return values


def generated(model: PreTrainedModel, inputs: Inputs | None = None, *, use_cache: bool) -> Tensor:
    """The logits [step, vocab] of tokens that are generated greedily after a text, or after a row with images."""
    if inputs is None:
        ids = batch(model)[0][:1, :PROMPT]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    output = model.generate(
        **inputs,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        num_beams=1,
        use_cache=use_cache,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return torch.cat(output.logits)


@contextmanager
def bypassing(blocks: Sequence[torch.nn.Module]) -> Iterator[None]:
    """A context in which the hidden states bypass blocks, whose outputs are not used."""

    def past(forward: Callable[..., Any]) -> Callable[..., Any]:
        def pass_by(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            hidden: Tensor = args[0] if args else kwargs["hidden_states"]
            if isinstance(output, dict):
                return {**output, next(iter(output)): hidden}
            return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

        return pass_by

    for block in blocks:
        block.forward = past(block.forward)  # some models call it without the hooks
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:300]
