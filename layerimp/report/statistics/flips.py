"""Flips: answers of a model that are others than those of the intact one (Dutta et al. 2024, arXiv 2407.09141)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from layerimp.metric import Metric, mean_and_error
from layerimp.report.results.measures import Flips


def flips(intact: Metric, model: Metric) -> Flips | None:
    """Compare the answers of a model with those of the intact one, document by document.

    Args:
        intact: A metric of the intact model.
        model: The same metric of the model.

    Returns:
        The flips; None if a document is not simply right or wrong, or the documents are not the same.
    """
    before, after = intact.documents, model.documents
    if not before or not after or len(before) != len(after) or intact.hashes != model.hashes:
        return None
    if not {*before, *after} <= {0.0, 1.0}:
        return None
    share = error = None
    if intact.answers is not None and model.answers is not None:
        differ = [float(ours != theirs) for ours, theirs in zip(model.answers, intact.answers, strict=True)]
        share, error = mean_and_error(differ, intact.strata)
    return Flips(
        share=share,
        stderr=error,
        to_wrong=sum(was > now for was, now in zip(before, after, strict=True)),
        to_right=sum(was < now for was, now in zip(before, after, strict=True)),
    )


def mean_flips(intact: Metric, repeats: Sequence[Metric]) -> Flips | None:
    """Return the flips of the models of all repeats, on average; None if those of a model are not known."""
    each = [flips(intact, model) for model in repeats]
    known = [one for one in each if one is not None]
    if not known or len(known) < len(each):
        return None
    if len(known) == 1:
        return known[0]
    shares = [one.share for one in known if one.share is not None]
    return Flips(
        share=fmean(shares) if len(shares) == len(known) else None,
        stderr=None,
        to_wrong=fmean(one.to_wrong for one in known),
        to_right=fmean(one.to_right for one in known),
    )
