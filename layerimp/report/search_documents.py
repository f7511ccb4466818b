"""The part of a run's JSON documents that describes a search for the most blocks that may be removed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict  # before Python 3.12, typing.TypedDict lacks what pydantic needs

from layerimp.report.json_types import Number, closed
from layerimp.steps import Step


@closed
class Share(TypedDict):
    """What a model retains, by the lower of the two means."""

    mean: Annotated[Number, Field(description="The share; null if it is infinite.")]
    stderr: Annotated[Number, Field(description="The standard error over the documents; null if not known.")]


@closed
class Tried(TypedDict):
    """A model that a search tried."""

    count: Annotated[int, Field(description="The number of removed blocks.")]
    retained: Annotated[
        Share | None,
        Field(description="The share on the documents that the search uses; null if the model could not be measured."),
    ]
    confirmed: Annotated[Share | None, Field(description="The share on all other documents.")]


@closed
class Removable(TypedDict):
    """How many blocks may be removed by one scorer, with or without healing."""

    count: Annotated[int, Field(description="The number of blocks; 0 if one is too many.")]
    blocks: Annotated[
        list[Step], Field(description="The steps, in order of removal: blocks as numbers, other steps as text.")
    ]
    retained: Annotated[
        Share | None, Field(description="The share on the documents that the search uses; null if `count` is 0.")
    ]
    confirmed: Annotated[
        Share | None,
        Field(description="The share on the documents that the search does not use; null if `count` is 0."),
    ]
    before_confirmation: Annotated[
        int,
        Field(
            description="The number found by the search; if it exceeds `count`, `confirmed` took part in the choice."
        ),
    ]
    tried: Annotated[list[Tried], Field(description="The models that were tried, by the number of removed blocks.")]


@closed
class Search(TypedDict):
    """A search for the most blocks that may be removed."""

    keep: Annotated[float, Field(description="The share that has to be retained.")]
    measured_on: Annotated[list[str], Field(description="The tasks, or the text, on which the share is measured.")]
    held_out: Annotated[
        bool, Field(description="Whether it is measured on held-out calibration text, because there are no tasks.")
    ]
    order: Annotated[list[str], Field(description="The labels, from the most removable blocks to the fewest.")]
    removable: Annotated[
        dict[str, Removable], Field(description="The results, by label of the scorer; SCORER+HEALER for healed models.")
    ]


class SearchResults(TypedDict, total=False):
    """The result of `--keep`."""

    search: Annotated[
        Search,
        Field(description="The result of `--keep`. All `metrics` are then for documents that the search did not use."),
    ]
