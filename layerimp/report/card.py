"""The model cards of pruned and of healed checkpoints: source, method, what was removed, how to make it again."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, StrictUndefined

from layerimp._paths import last_part, tree_without_folders, without_folders
from layerimp._version import __version__
from layerimp.models.origin import PIPELINES, Origin, front_matter, metadata
from layerimp.pruner import counted
from layerimp.recipe import Recipe
from layerimp.report import words
from layerimp.report.results.data import by_folder, documents_asked
from layerimp.report.results.measures import Measured, Share
from layerimp.report.tables.fidelity_figures import FIGURES
from layerimp.report.tables.models import AT_FLOOR, MARK
from layerimp.report.verdict import judged
from layerimp.report.words import measured, share_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from huggingface_hub import EvalResult

    from layerimp.fidelity.record import Sample
    from layerimp.healer import Healer
    from layerimp.report.document import Results
    from layerimp.report.results.comparison import Design, ModelResults
    from layerimp.report.results.healing import HealingReport
    from layerimp.report.results.models import PrunedModel, Removal, RepairedGap

_OF_BEFORE = ("## Results", "## How far from the source")
"""The headings in a card of what does not hold any more once the checkpoint is healed."""

_METRICS = {"acc": "accuracy", "word_perplexity": "perplexity", "byte_perplexity": "perplexity"}
"""The Hub's names of metrics, where lm-evaluation-harness has other names."""


def escaped(text: str) -> str:
    """`text` as plain Markdown: one line, and nothing in it that Markdown or HTML would act on."""
    plain = re.sub(r"([\\`*_{}\[\]()#+!|<>&~$])", r"\\\1", " ".join(text.split()))
    return re.sub(r":(?=//)|(?<=www)\.|@", r"\\\g<0>", plain)  # bare addresses become links by themselves


@dataclass(frozen=True)
class _Pruned:
    """A checkpoint of a run.

    Attributes:
        results: The results of the run.
        label: The label of its pruned model.
    """

    results: Results
    label: str

    @property
    def model(self) -> ModelResults:
        """The results for the model of the run."""
        return self.results.model

    @property
    def design(self) -> Design:
        """The design of the run."""
        return self.results.design

    @cached_property
    def removal(self) -> Removal:
        """What was removed, and how."""
        return next(removal for removal in self.model.removals if removal.label == self.label)

    @property
    def pruned(self) -> PrunedModel:
        """The pruned model."""
        return self.removal.models[0]

    @property
    def measured(self) -> Iterator[tuple[str, str, Measured, Measured | None]]:
        """The metrics: task, name, and the values of the pruned and of the intact model.

        The tasks of a group within a group are left out: BLiMP alone has 67.
        """
        for task, metrics in self.pruned.metrics.items():
            for name, metric in metrics.items() if task not in self.model.inner else ():
                yield task, name, metric, self.model.metrics.get(task, {}).get(name)

    @property
    def beside_source(self) -> list[tuple[str, str, Measured, Measured | None]]:
        """The metrics of the card: those of both models."""
        return [each for each in self.measured if each[3] is not None]

    def retained(self, task: str, name: str) -> Share | None:
        """What is retained of a task, if the task counts by this metric."""
        entries = (row.entries.get(self.label) for row in self.model.rows if (row.task, row.metric) == (task, name))
        counts = any(entry is not None and entry.retained is not None for entry in entries)
        return self.removal.retained.tasks.get(task) if counts and self.removal.retained else None


def model_card(
    results: Results,
    label: str,
    origin: Origin | None = None,
    *,
    command: str = "run",
    samples: Sequence[Sample] = (),
) -> str:
    """Return the card of a checkpoint: metadata for the Hub, and Markdown. No local folder is named.

    Args:
        results: The results of the run.
        label: The label of the pruned model.
        origin: The source of the checkpoint; by default only its name is known.
        command: The command that made the checkpoint: `run`, `prune` or `shrink`.
        samples: Continuations that may be published.
    """
    checkpoint, healers = _Pruned(results, label), results.design.healers
    origin = origin or Origin(name=last_part(results.request["model"]))
    plan, healer, recipe = checkpoint.pruned.plan, checkpoint.removal.healer, None
    tags = (plan.scorer, *(("healed", healers[healer].name) if healer else ()))
    data = metadata(
        origin,
        str(checkpoint.model.loader),
        tags,
        _for_the_hub(checkpoint),
        f"{origin.name.rpartition('/')[2]}-{label}",
    )
    if plan.scorer is not None and checkpoint.model.scored:
        recipe = as_json(_asked(Recipe.model_validate(results.request), command) | {"model": origin.name})
    document = as_json(tree_without_folders(plan.model_dump(mode="json")) | {"model": origin.name})
    card = _template().pruned(checkpoint, origin, document, recipe, command, samples)
    return front_matter(data) + str(card)


def _for_the_hub(checkpoint: _Pruned) -> list[EvalResult]:
    """Return the metrics of a checkpoint as the Hub reads them, without those whose value is not finite.

    The Hub attributes all results of a card to its model. So the value of the intact model, the number of documents and
    the standard errors are given as arguments of the metric.
    """
    from huggingface_hub import EvalResult

    design, metrics = checkpoint.design, []
    for task, name, metric, intact in checkpoint.measured:
        kept = checkpoint.retained(task, name)
        arguments = {
            "documents": metric.documents,
            "stderr": metric.stderr,
            "higher_is_better": metric.higher_is_better,
            "intact": None if intact is None else intact.value,
            "intact_stderr": None if intact is None else intact.stderr,
            "retained": None if kept is None else kept.mean,
            "retained_stderr": None if kept is None else kept.stderr,
            "num_fewshot": design.num_fewshot,
            "limit": None if design.limits else design.limit,
        }
        if math.isfinite(metric.value):
            metrics.append(
                EvalResult(
                    task_type=PIPELINES.get(str(checkpoint.model.loader), "other"),
                    dataset_type=task,
                    dataset_name=task,
                    metric_type=_METRICS.get(name, name),
                    metric_name=name,
                    metric_value=metric.value,
                    metric_args={key: value for key, value in arguments.items() if _says(value)},
                )
            )
    return metrics


def _says(value: Any) -> bool:
    """Return whether a value is known, and is neither NaN nor infinite, which JSON cannot express."""
    return value is not None and (not isinstance(value, float) or math.isfinite(value))


def _asked(recipe: Recipe, command: str) -> dict[str, Any]:
    """Return the fields of the recipe that differ from their defaults, without those that depend on the machine."""
    left_out = {"output", "overwrite", "device", "device_map"} | ({"tasks"} if command == "prune" else set())
    asked = recipe.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    plain: dict[str, Any] = tree_without_folders(tree_without_folders(asked, last_part))
    return plain


@dataclass(frozen=True)
class HealedCheckpoint:
    """A checkpoint that was healed by itself, as its card describes it.

    Attributes:
        origin: The intact model.
        loader: The stock `Auto` class that loads the checkpoint.
        recipe: The recipe, with the pruned model and the calibration text.
        healer: The healer.
        report: What was done, and its effect.
        samples: Continuations that may be published.
        named: What was named in place of what the record of the pruned model says: `teacher` and `removed`.
    """

    origin: Origin
    loader: str
    recipe: Recipe
    healer: Healer
    report: HealingReport
    samples: Sequence[Sample] = ()
    named: Mapping[str, str] = field(default_factory=dict)


def healed_card(before: str, checkpoint: HealedCheckpoint) -> str:
    """Return the card of a healed checkpoint: the card of the checkpoint before, with a section on healing.

    Results in the card of the checkpoint before are not those of this one: the metadata leave them out, and the heading
    above them says so.

    Args:
        before: The card of the checkpoint before healing; empty if there is none.
        checkpoint: The healed checkpoint.
    """
    healer, card = checkpoint.healer, _template()
    tags, body = _parts(before)
    data = metadata(checkpoint.origin, checkpoint.loader, [*tags, "healed", healer.name])
    if not body.strip():
        body = str(card.without_card(checkpoint.origin, checkpoint.loader))
    for heading in _OF_BEFORE:
        body = body.replace(f"\n{heading}\n", f"\n{heading} before healing by {escaped(healer.name)}\n")
    start = next((heading.start() for heading in re.finditer("^## ", body, re.MULTILINE)), len(body))
    section = str(card.healed(checkpoint, " ".join(map(shlex.quote, _command(checkpoint)))))
    return f"{front_matter(data)}{body[:start].rstrip()}\n\n{section}{body[start:]}"


def _parts(card: str) -> tuple[list[str], str]:
    """Return the tags of a card, and its text below the metadata."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    block = REGEX_YAML_BLOCK.search(card)
    if block is None:
        return [], card
    try:
        metadata_before = yaml.safe_load(block[2])
    except yaml.YAMLError:
        metadata_before = None
    tags = metadata_before.get("tags") if isinstance(metadata_before, dict) else None
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else [], card[block.end() :]


def _command(checkpoint: HealedCheckpoint) -> Iterator[str]:
    """Yield the words of the command that heals the checkpoint again."""
    recipe, healer = checkpoint.recipe, checkpoint.healer
    yield from ("layerimp", "heal", "--model", " ".join(last_part(recipe.model).split()), "--healer", healer.name)
    own = recipe.model_dump(mode="json", include={"heal_text", "seed", "batch_size", "dtype"}, exclude_defaults=True)
    text = recipe.calibration.model_dump(mode="json", exclude_defaults=True)
    options = {"calibration": str(text.pop("source")), **text, **own, **checkpoint.named}
    for name, value in tree_without_folders(tree_without_folders(options, last_part)).items():
        yield f"--{name.replace('_', '-')}"
        if value is not True:  # a flag
            yield " ".join(str(value).split())
    for name, value in tree_without_folders(healer.config.model_dump(mode="json", exclude_defaults=True)).items():
        yield from ("--set", f"{healer.name}.{name}={json.dumps(value)}")
    yield from ("--output", "out")


@cache
def _template() -> Any:
    """Return the template of cards, whose macros are their sections."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "count": "{:,}".format,
        "counted": counted,
        "done": _done,
        "fenced": fenced,
        "kept": lambda share: "" if share is None else share_cell(share),
        "last_part": last_part,
        "measured": measured,
        "plain": escaped,
        "quoted": lambda name: shlex.quote(" ".join(name.split())),
        "ranges": words.ranges,
        "share": "{:.2%}".format,
        "why_poor": lambda fidelity, retained=None: judged(fidelity, retained)[1],
        "without_folders": without_folders,
    }
    environment.globals |= {"beside": words.beside, "recovery": words.recovery}
    environment.globals |= {"by_folder": by_folder, "documents_asked": documents_asked, "figures": FIGURES}
    environment.globals |= {"at_floor": AT_FLOOR, "mark": MARK, "version": __version__}
    return environment.from_string(files(__package__).joinpath("card.md.jinja").read_text("utf-8")).module


def _done(gaps: Iterable[RepairedGap]) -> str:
    """List what was done at each gap."""
    return escaped("; ".join(f"{gap.gap}: {gap.done}" for gap in gaps))


def as_json(document: Mapping[str, Any]) -> str:
    """Return a document as JSON that cannot end its code block, and holds nothing that is read as HTML or a formula."""
    text = json.dumps(document, indent=2)
    return text.replace("<", "\\u003c").replace("$", "\\u0024")


def fenced(text: str, language: str) -> str:
    """Return a code block, whose fence is longer than any that a line of the text begins with."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"^\s*(`{3,})", text, re.MULTILINE)), default=0))
    return "\n".join((f"{fence}{language}", *text.splitlines(), fence))
