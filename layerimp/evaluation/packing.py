"""Packs metrics into compact plain data, in which each array is stored once and compressed."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from layerimp.metric import Likelihood, Metric, Stratum

ARRAYS = ("totals", "units", "unigram")
WHOLE = ("hashes", "answers")
BY_DOCUMENT = ("documents", *WHOLE)


def packed(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Pack metrics into plain data that can be written as JSON.

    Returns:
        The records of the metrics, in which arrays are given by number, and the arrays.
    """
    arrays: dict[str, int] = {}

    def number(values: Sequence[float] | None) -> int | None:
        if values is None:
            return None
        content = base64.b85encode(zlib.compress(np.asarray(values, dtype="<f8").tobytes())).decode()
        return arrays.setdefault(content, len(arrays))

    records = []
    for metric in metrics:
        record = asdict(replace(metric, documents=None, likelihood=None, hashes=None, answers=None, strata=()))
        record |= {name: number(getattr(metric, name)) for name in BY_DOCUMENT} | {"strata": metric.strata}
        if (likelihood := metric.likelihood) is not None:
            record["likelihood"] = {name: number(getattr(likelihood, name)) for name in ARRAYS}
            record["likelihood"]["bits"] = likelihood.bits
        records.append(record)
    return {"metrics": records, "arrays": list(arrays)}


def unpacked(content: Mapping[str, Any]) -> list[Metric]:
    """Unpack metrics from plain data.

    Raises:
        ValueError, TypeError, KeyError, IndexError: the data does not hold packed metrics.
    """
    arrays = [
        tuple(np.frombuffer(zlib.decompress(base64.b85decode(each)), dtype="<f8").tolist())
        for each in content["arrays"]
    ]

    def values(number: int | None) -> Any:
        return None if number is None else arrays[number]

    metrics = []
    for record in content["metrics"]:
        fields = dict(record)
        fields |= {name: values(fields[name]) for name in BY_DOCUMENT}
        fields |= {name: tuple(map(int, fields[name])) for name in WHOLE if fields[name] is not None}
        fields["members"] = tuple(fields["members"])
        fields["strata"] = tuple(Stratum(*stratum) for stratum in fields["strata"])
        if (likelihood := fields["likelihood"]) is not None:
            fields["likelihood"] = Likelihood(
                **{name: values(likelihood[name]) for name in ARRAYS}, bits=likelihood["bits"]
            )
        metrics.append(Metric(**fields))
    return metrics
