"""The command `compare`: how far models of any origin are from an intact one with the same tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from layerimp._paths import expanded, last_name
from layerimp.calibration.sampling import CalibrationSet
from layerimp.checkpoint.record import ReservedText, read_record
from layerimp.defaults import FIDELITY, HARNESS, ORIGINAL
from layerimp.errors import ModelError, OptionError
from layerimp.evaluation.comparing import Comparing, comparer_of
from layerimp.evaluation.runner import Evaluation
from layerimp.evaluation.selection import fitting
from layerimp.evaluation.selection import prepared as prepare_evaluators
from layerimp.metric import by_key
from layerimp.models.dtypes import name_of
from layerimp.models.loading import load_tokenizer
from layerimp.models.origin import model_name
from layerimp.models.safetensors_files import read_headers
from layerimp.models.traits import longest_row
from layerimp.pipeline.output import check_output, output_directory
from layerimp.pipeline.resolve import anywhere, resolve, settled
from layerimp.pipeline.stages import load_model, tell_unmeasured
from layerimp.pipeline.texts import Texts, check_calibration
from layerimp.progress import SILENT, Progress
from layerimp.recipe import Permissions, Recipe, check_kind, validated
from layerimp.recipe.components import named
from layerimp.report.model_comparison import ModelMeasures, compared, why_not_compared
from layerimp.report.page import write_comparison
from layerimp.report.results.compared import ModelComparison
from layerimp.report.results.models import Size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from layerimp.evaluator import Evaluator
    from layerimp.fidelity import Fidelity
    from layerimp.metric import Metric
    from layerimp.pipeline.stages import Loaded


@dataclass(frozen=True)
class PreparedComparison:
    """A comparison that can be carried out, as far as this is known before weights are read.

    Attributes:
        recipe: The recipe of the intact model, with the text that is used by default.
        models: The other models, by label.
        text_named: Whether the recipe names the text.
        evaluators: The evaluators, by label.
        reserved: By label, the text that the record of a checkpoint keeps for fidelity, if it has one.
        permissions: Which code that came with data may run.
        progress: Where to report progress.
    """

    recipe: Recipe
    models: Mapping[str, str]
    text_named: bool
    evaluators: Mapping[str, Evaluator]
    reserved: Mapping[str, ReservedText]
    permissions: Permissions
    progress: Progress


def compare(
    intact: str | Recipe,
    models: Mapping[str, str] | Sequence[str],
    *,
    permissions: Permissions | None = None,
    progress: Progress = SILENT,
) -> ModelComparison:
    """Compare models with an intact one: fidelity, tasks document by document, and continuations of the same prompts.

    The models may be of any origin and architecture, also quantised ones that Transformers loads. They have to share
    the intact model's tokenizer.

    Args:
        intact: The intact model; or a recipe with it as the model, whose text, tasks and evaluators are used.
        models: The other models, each MODEL or LABEL=MODEL, or a mapping from labels. A model without a label gets the
            name of its directory.
        permissions: Which code that came with data may run; by default none.
        progress: Where to report progress.

    Raises:
        InputError: something is wrong with the request. If possible, this is found before any long work.
        LayerimpError: a model cannot be measured; nothing is left under the output's name.
    """
    recipe = validated(Recipe, {"model": intact}) if isinstance(intact, str) else intact
    prepared = _prepare(recipe, models, permissions or Permissions(), progress)
    with output_directory(prepared.recipe, why_not_compared, [*prepared.models.values()]) as stage:
        comparison = _carried_out(prepared)
        if stage is None:
            return comparison
        write_comparison(comparison, stage)
    return comparison.model_copy(update={"output": str(expanded(prepared.recipe.output or "").absolute())})


def labelled(models: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return models by label; a model without a label gets the name of its directory.

    Raises:
        OptionError: two models have the same label, a label is the intact model's, or there is no model.
    """
    if not models:
        raise OptionError("name at least one model to compare with the intact one")
    if isinstance(models, str):
        raise OptionError("models is a list, or a mapping from labels")
    if not isinstance(models, Mapping):
        pairs = list(map(_with_label, models))
        labels = [label for label, _ in pairs]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise OptionError(f"two models are called {twice!r}; give them labels: LABEL=MODEL")
        models = dict(pairs)
    if ORIGINAL in models:
        raise OptionError(f"{ORIGINAL!r} is what the intact model is called; give {models[ORIGINAL]} another label")
    return dict(models)


def _with_label(text: str) -> tuple[str, str]:
    """Return the label and the name of a model; the path of a model may hold an equals sign."""
    label, equals, model = text.partition("=")
    return (label, model) if equals and not expanded(text).exists() else (last_name(text), text)


def _prepare(
    given: Recipe, models: Mapping[str, str] | Sequence[str], permissions: Permissions, progress: Progress
) -> PreparedComparison:
    check_kind(given, Recipe)
    others = labelled(models)
    chosen = given.evaluators if "evaluators" in given.model_fields_set else named(HARNESS, FIDELITY)
    recipe = resolve(given).model_copy(update={"tasks": given.tasks or (), "evaluators": chosen})
    check_output(recipe, why_not_compared, [*others.values()])
    check_calibration(recipe, permissions, progress)
    evaluators = prepare_evaluators(recipe, permissions, progress)
    if comparer_of(evaluators) is None:
        raise OptionError(f"compare measures how far models are from the intact one: add --evaluator {FIDELITY}")
    if costs := [label for label, evaluator in evaluators.items() if evaluator.kind == "cost"]:
        raise OptionError(f"the evaluator {costs[0]!r} measures costs, which layerimp compare does not show")
    tokenizer = _tokenizer(recipe.model, permissions)
    for model in others.values():
        check_same_tokenizer(recipe.model, tokenizer, model, _tokenizer(model, permissions))
    records = {label: read_record(expanded(model)) for label, model in others.items()}
    return PreparedComparison(
        recipe=recipe,
        models=others,
        text_named=given.calibration.source is not None,
        evaluators=evaluators,
        reserved={label: record.fidelity_text for label, record in records.items() if record and record.fidelity_text},
        permissions=permissions,
        progress=progress,
    )


def _tokenizer(model: str, permissions: Permissions) -> PreTrainedTokenizerBase:
    return load_tokenizer(model, trust_remote_code=permissions.trust_remote_code)


_PROBE = "The cost of 3 naïve  models, in 2024:\n\tnot 1,234.5 — but “less”? 你好 don't, I'd say.\r\n"
"""A text with cases that tokenizers treat differently."""


def check_same_tokenizer(
    intact: str, tokenizer: PreTrainedTokenizerBase, model: str, other: PreTrainedTokenizerBase
) -> None:
    """Refuse a model with another tokenizer than the intact model's. Tokens that were added to one are allowed.

    Args:
        intact: The name of the intact model.
        tokenizer: Its tokenizer.
        model: The name of the other model.
        other: Its tokenizer.

    Raises:
        ModelError: a token has another number, or a text is encoded differently.
    """
    why = ""
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    common = ours.keys() & theirs.keys()
    if len(common) < min(len(ours), len(theirs)):
        why = f"{min(len(ours), len(theirs)) - len(common):,} tokens are in one of the two only"
    elif moved := min((token for token in common if ours[token] != theirs[token]), default=None):
        why = f"the token {moved!r} is {ours[moved]} in one and {theirs[moved]} in the other"
    elif list(tokenizer(_PROBE)["input_ids"]) != list(other(_PROBE)["input_ids"]):
        why = "the same text becomes other tokens"
    if why:
        raise ModelError(
            f"{model} has another tokenizer than {intact}, so that their predictions cannot be compared: {why}"
        )


def _carried_out(prepared: PreparedComparison) -> ModelComparison:
    """Load the intact model, then the others one after the other beside it, and measure them."""
    recipe, allowed, progress = prepared.recipe, prepared.permissions, prepared.progress
    intact = load_model(recipe, allowed, progress, quantised=True)
    recipe = settled(recipe, intact.model).model_copy(update={"dtype": recipe.dtype})  # other models have their own
    evaluators, failed = fitting(recipe, prepared.evaluators, intact.model, progress, lenient=False)
    texts = Texts(recipe, intact, allowed, progress)
    text, unread = texts.for_comparison(prepared.reserved, named=prepared.text_named)
    tell_unmeasured(recipe, intact, progress)
    name = model_name(recipe.model)
    evaluation = Evaluation(intact.model, intact.tokenizer, progress, failed=failed, intact_name=name)
    whole = _measures(recipe.model, intact, evaluation.of(evaluators, "quality"))
    comparing = None
    if comparer := comparer_of(evaluators):
        comparing = Comparing(*comparer, intact.model, intact.tokenizer, progress)
    measured: dict[str, ModelMeasures] = {}
    failures: dict[str, str] = {}
    for label, model in prepared.models.items():
        loaded = load_model(recipe.model_copy(update={"model": model}), allowed, progress, quantised=True)
        _check_length(model, loaded, text)
        fit, broken = fitting(recipe, evaluators, loaded.model, progress, lenient=False)
        failures |= {f"{evaluator} on {label}": why for evaluator, why in broken.items()}
        metrics = evaluation.beside(loaded.model).of(fit, "quality", label)
        fidelity = comparing.of(loaded.model, text, label) if comparing and comparing.label in fit else None
        measured[label] = _measures(model, loaded, metrics, fidelity)
        del loaded  # so that the next model finds room
    failures |= evaluation.failed
    if comparing and comparing.failed:
        failures[comparing.label] = comparing.failed
    notes = [_unsure(unsure)] if (unsure := [label for label in prepared.models if label not in unread]) else []
    request = {**anywhere(recipe).model_dump(mode="json", include=_SHOWN), "models": dict(prepared.models)}
    return compared(request, text.description, whole, measured, failures=failures, notes=notes)


_SHOWN = {
    *("model", "dtype", "calibration", "tasks", "evaluators", "task_path", "data_dir", "limit", "limits"),
    *("num_fewshot", "batch_size", "seed"),
}
"""The fields of a recipe that a comparison reads."""


def _unsure(labels: Sequence[str]) -> str:
    """Say of which models it is not known that they were made without the text."""
    were = "was" if len(labels) == 1 else "were"
    return f"no record says whether {' and '.join(labels)} {were} made with the text that fidelity is measured on"


def _check_length(model: str, loaded: Loaded, text: CalibrationSet) -> None:
    """Refuse text that is too long for a model.

    Raises:
        OptionError: the model has too few positions.
    """
    longest, length = longest_row(loaded.model), max(map(len, text.rows))
    if longest is not None and length > longest:
        raise OptionError(f"{model} reads {longest} tokens at most, and the text has rows of {length}: --max-length")


def _measures(name: str, loaded: Loaded, metrics: Sequence[Metric], fidelity: Fidelity | None = None) -> ModelMeasures:
    size = Size.of(loaded.stack)
    if headers := read_headers(name):
        size = size.model_copy(update={"bytes": headers.bytes})  # whatever dtype the model computes in
    return ModelMeasures(name, size, name_of(loaded.model.dtype), by_key(metrics), fidelity)
