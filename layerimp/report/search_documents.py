"""What a search for the most blocks that may go says in the JSON documents of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict  # typing's own lacks what pydantic needs before Python 3.12

from layerimp.report.json_types import Number, closed
from layerimp.steps import Step


@closed
class Share(TypedDict):
    """What a model retains, by the lower of the two means."""

    mean: Annotated[Number, Field(description="The share; null where it is infinite.")]
    stderr: Annotated[Number, Field(description="Its standard error over the documents; null where it is not known.")]


@closed
class Tried(TypedDict):
    """A model that a search tried."""

    count: Annotated[int, Field(description="How many blocks had gone.")]
    retained: Annotated[
        Share | None,
        Field(description="On the documents that the search chooses by; null where the model could not be measured."),
    ]
    confirmed: Annotated[Share | None, Field(description="On all other documents.")]


@closed
class Removable(TypedDict):
    """How many blocks may go by one scorer's choice, as they are removed or healed."""

    count: Annotated[int, Field(description="How many; 0 where one is too many.")]
    blocks: Annotated[
        list[Step], Field(description="Which, in order of removal: blocks as numbers, other steps as text.")
    ]
    retained: Annotated[
        Share | None, Field(description="On the documents that the search chose by; null where nothing may go.")
    ]
    confirmed: Annotated[
        Share | None, Field(description="On the documents that it did not use; null where nothing may go.")
    ]
    before_confirmation: Annotated[
        int,
        Field(description="What the search had found; where it is more than `count`, `confirmed` is a choice, too."),
    ]
    tried: Annotated[list[Tried], Field(description="The models that were tried, from few blocks to many.")]


@closed
class Search(TypedDict):
    """A search for the most blocks that may go."""

    keep: Annotated[float, Field(description="The share that has to be retained.")]
    measured_on: Annotated[list[str], Field(description="The tasks, or the text, that it is measured on.")]
    held_out: Annotated[
        bool, Field(description="Whether it is measured on calibration text that was held out, for want of tasks.")
    ]
    order: Annotated[list[str], Field(description="The labels, from the one by which most may go.")]
    removable: Annotated[
        dict[str, Removable], Field(description="By label of the scorer, and SCORER+HEALER for what is healed.")
    ]


class SearchResults(TypedDict, total=False):
    """What `--keep` found."""

    search: Annotated[
        Search,
        Field(description="What `--keep` found. All `metrics` are then of the documents that the search did not use."),
    ]
