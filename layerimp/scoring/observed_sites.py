"""The sites that a scorer observes: those that stand in for others, and a trace as the scorer sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from layerimp.errors import ModelError, PluginError, listing
from layerimp.scorer import Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from layerimp.sweep import Trace


def fallbacks(label: str, scorer: Scorer, missing: Mapping[str, list[int]]) -> dict[str, str]:
    """For each site that the model lacks, the site that the scorer reads in its place, in every block."""
    renamed = {}
    for site in sorted(scorer.observes & missing.keys()):
        other = scorer.fallbacks.get(site)
        if other is None:
            raise ModelError(f"scorer {label!r} reads the site {site!r}, which block {missing[site][0]} does not have")
        renamed[site] = other
    return renamed


class _Observed(dict[str, "Tensor"]):
    """The sites that a scorer observes; reading any other site raises an error that names it."""

    def __missing__(self, site: str) -> Tensor:
        raise PluginError(f"it reads the site {site!r}, which is not in its `observes` ({listing(self)})")


def as_observed(trace: Trace, scorer: Scorer, renamed: Mapping[str, str]) -> Trace:
    """A trace as a scorer sees it: with the sites that it observes, under their names."""
    return replace(trace, acts=_Observed({site: trace.acts[renamed.get(site, site)] for site in scorer.observes}))
