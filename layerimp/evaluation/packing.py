"""Metrics as plain data that takes little room: each array once, compressed."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from layerimp.evaluator import Likelihood, Metric

ARRAYS = ("totals", "units", "unigram")


def packed(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Metrics as plain data, such as JSON holds.

    Returns:
        The records of the metrics, in which an array is named by its number, and the arrays.
    """
    arrays: dict[str, int] = {}

    def number(values: Sequence[float] | None) -> int | None:
        if values is None:
            return None
        content = base64.b85encode(zlib.compress(np.asarray(values, dtype="<f8").tobytes())).decode()
        return arrays.setdefault(content, len(arrays))

    records = []
    for metric in metrics:
        record = asdict(replace(metric, documents=None, likelihood=None, hashes=None))
        record |= {"documents": number(metric.documents), "hashes": number(metric.hashes)}
        if (likelihood := metric.likelihood) is not None:
            record["likelihood"] = {name: number(getattr(likelihood, name)) for name in ARRAYS}
            record["likelihood"]["bits"] = likelihood.bits
        records.append(record)
    return {"metrics": records, "arrays": list(arrays)}


def unpacked(content: Mapping[str, Any]) -> list[Metric]:
    """Metrics from plain data; those from before documents, or their hashes, were kept have none.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it is something else.
    """
    arrays = [
        tuple(np.frombuffer(zlib.decompress(base64.b85decode(each)), dtype="<f8").tolist())
        for each in content.get("arrays", ())
    ]

    def values(number: int | None) -> Any:
        return None if number is None else arrays[number]

    metrics = []
    for record in content["metrics"]:
        fields = dict(record)
        fields["documents"] = values(fields.get("documents"))
        hashes = values(fields.get("hashes"))
        fields["hashes"] = None if hashes is None else tuple(map(int, hashes))
        fields["members"] = tuple(fields.get("members", ()))
        if (likelihood := fields.get("likelihood")) is not None:
            fields["likelihood"] = Likelihood(
                **{name: values(likelihood[name]) for name in ARRAYS}, bits=likelihood["bits"]
            )
        metrics.append(Metric(**fields))
    return metrics
