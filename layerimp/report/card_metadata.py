"""The metadata of a model card, which the Hub reads; made by the classes of huggingface_hub."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from huggingface_hub import EvalResult, ModelCardData

    from layerimp.metric import Metric
    from layerimp.models.origin import Origin
    from layerimp.report.checkpoint import Checkpoint
    from layerimp.report.statistics.comparison import Kept

TAGS = ("layerimp", "pruned", "depth-pruning")
"""The tags of every pruned checkpoint."""

_PIPELINES = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModel": "feature-extraction",
}
"""The Hub's names of the tasks of models, by the stock class that loads the model."""

_METRICS = {"acc": "accuracy", "word_perplexity": "perplexity", "byte_perplexity": "perplexity"}
"""The Hub's names of metrics, where lm-evaluation-harness has other names."""

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def metadata(
    origin: Origin, loader: str, tags: Iterable[str | None] = (), results: Sequence[EvalResult] = (), name: str = ""
) -> ModelCardData:
    """Return the metadata of a checkpoint's card.

    The relation to the base is `finetune`: the Hub has no word for pruning, and uses this one for derived models that
    are not quantised, not adapters, and not merged from several.

    Args:
        origin: The source of the checkpoint.
        loader: The stock `Auto` class that loads the checkpoint.
        tags: Further tags, such as the scorer; texts that cannot be tags are left out.
        results: The results of the evaluation.
        name: The name of the checkpoint beside these results.
    """
    from huggingface_hub import ModelCardData

    base: Any = list(origin.base_model) if len(origin.base_model) > 1 else next(iter(origin.base_model), None)
    return ModelCardData(
        base_model=base,
        base_model_relation="finetune" if base else None,
        library_name="transformers",
        pipeline_tag=_PIPELINES.get(loader),
        license=origin.license,
        license_name=origin.license_name,
        license_link=origin.license_link,
        tags=[*TAGS, *(tag for tag in tags if tag and _TAG.fullmatch(tag))],
        model_name=name if results else None,
        eval_results=list(results) or None,
    )


def front_matter(data: ModelCardData) -> str:
    """Return the metadata as text for the head of a card."""
    return f"---\n{data.to_yaml()}\n---\n"


def results(checkpoint: Checkpoint, comparison: Kept | None) -> list[EvalResult]:
    """Return the results of a checkpoint, one for each metric whose value is finite.

    The Hub attributes all results of a card to its model. So the value of the intact model, the number of documents and
    the standard errors are given as arguments of the metric.
    """
    return [_result(metric, checkpoint, comparison) for metric in checkpoint.after if math.isfinite(metric.value)]


def _result(metric: Metric, checkpoint: Checkpoint, comparison: Kept | None) -> EvalResult:
    """Return one metric as the Hub reads it."""
    from huggingface_hub import EvalResult

    intact = next((m for m in checkpoint.before if (m.task, m.name) == (metric.task, metric.name)), None)
    kept = None if comparison is None else comparison.of(metric)
    arguments = {
        "documents": metric.count,
        "stderr": metric.stderr,
        "higher_is_better": metric.higher_is_better,
        "intact": None if intact is None else intact.value,
        "intact_stderr": None if intact is None else intact.stderr,
        "retained": None if kept is None else kept.mean,
        "retained_stderr": None if kept is None or kept.error is None else float(kept.error),
        "num_fewshot": checkpoint.recipe.num_fewshot,
        "limit": None if checkpoint.recipe.limits else checkpoint.recipe.limit,
    }
    return EvalResult(
        task_type=_PIPELINES.get(checkpoint.loader, "other"),
        dataset_type=metric.task,
        dataset_name=metric.task,
        metric_type=_METRICS.get(metric.name, metric.name),
        metric_name=metric.name,
        metric_value=metric.value,
        metric_args={name: value for name, value in arguments.items() if _says(value)},
    )


def _says(value: Any) -> bool:
    """Return whether a value is known, and is neither NaN nor infinite, which JSON cannot express."""
    return value is not None and (not isinstance(value, float) or math.isfinite(value))
