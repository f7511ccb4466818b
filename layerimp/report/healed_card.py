"""The model card of a healed checkpoint: the card of the checkpoint before, with a section on healing."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from layerimp._paths import last_part, tree_without_folders
from layerimp._version import __version__
from layerimp.models.origin import front_matter, metadata
from layerimp.report.card import DISTANCE, RESULTS, distance, escaped, fenced, use

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from layerimp.calibration.sampling import Calibration
    from layerimp.fidelity.record import Fidelity
    from layerimp.healer import Healer, Repair
    from layerimp.models.origin import Origin
    from layerimp.recipe import Recipe


@dataclass(frozen=True)
class HealedCheckpoint:
    """A checkpoint that was healed by itself, as its card describes it.

    Attributes:
        origin: The intact model.
        loader: The stock `Auto` class that loads the checkpoint.
        recipe: The recipe, with the pruned model and the calibration text.
        healer: The healer.
        repairs: The repairs, one for each gap.
        recovered: What came back, as `recovery` says it.
        text: The text that was drawn.
        fidelity: How far the checkpoint is from the intact model; None if that was not measured.
    """

    origin: Origin
    loader: str
    recipe: Recipe
    healer: Healer
    repairs: Sequence[Repair]
    recovered: str
    text: Calibration
    fidelity: Fidelity | None = None


def healed_card(before: str, checkpoint: HealedCheckpoint) -> str:
    """Return the card of a healed checkpoint.

    Results in the card of the checkpoint before are not those of this one: the metadata leave them out, and the heading
    above them says so.

    Args:
        before: The card of the checkpoint before healing; empty if there is none.
        checkpoint: The healed checkpoint.
    """
    healer, text = checkpoint.healer, checkpoint.text
    tags, body = _parts(before)
    data = metadata(checkpoint.origin, checkpoint.loader, [*tags, "healed", healer.name])
    if not body.strip():
        body = "\n".join(
            ["", "# A pruned model", "", f"- **Source:** {escaped(checkpoint.origin.name)}", *use(checkpoint.loader)]
        )
    done = escaped("; ".join(f"{repair.gap}: {repair.done}" for repair in checkpoint.repairs))
    section = [
        f"## Healed by {escaped(healer.name)}",
        "",
        f"- **Method:** healer {escaped(healer.name)}, layerimp {__version__} ({done})",
        f"- **Text:** {text.tokens:,} tokens (fingerprint {text.fingerprint})",
        f"- **Recovered:** {escaped(checkpoint.recovered)}",
        *("", "Made from the checkpoint before by", ""),
        *fenced("bash", " ".join(map(shlex.quote, _command(checkpoint.recipe, healer)))),
        *distance(checkpoint.fidelity),
        "",
        "",
    ]
    for heading in (RESULTS, DISTANCE):
        body = body.replace(f"\n{heading}\n", f"\n{heading} before healing by {escaped(healer.name)}\n")
    summary, rest = _divided(body)
    return front_matter(data) + "\n".join([summary.rstrip(), "", *section]) + rest


def _divided(body: str) -> tuple[str, str]:
    """Return the text of a card before its first heading of the second level, and the rest."""
    start = next((heading.start() for heading in re.finditer("^## ", body, re.MULTILINE)), len(body))
    return body[:start], body[start:]


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


def _command(recipe: Recipe, healer: Healer) -> Iterator[str]:
    """Yield the words of the command that heals the checkpoint again."""
    yield from ("layerimp", "heal", "--model", " ".join(last_part(recipe.model).split()), "--healer", healer.name)
    own = recipe.model_dump(mode="json", include={"heal_text", "seed"}, exclude_defaults=True)
    text = recipe.calibration.model_dump(mode="json", exclude_defaults=True)
    options = {"calibration": str(text.pop("source")), **text, **own}
    for name, value in tree_without_folders(tree_without_folders(options, last_part)).items():
        yield from (f"--{name.replace('_', '-')}", " ".join(str(value).split()))
    for name, value in tree_without_folders(healer.config.model_dump(mode="json", exclude_defaults=True)).items():
        yield from ("--set", f"{healer.name}.{name}={json.dumps(value)}")
    yield from ("--output", "out")
