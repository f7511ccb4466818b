"""What a checkpoint was made from: a file beside its weights that healing reads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from layerimp.component import Plain
from layerimp.errors import InputError, first_problem
from layerimp.steps import Step

FILE = "layerimp.json"
"""Where it lies in a checkpoint."""


class Record(Plain):
    """What was removed from what, and who healed it. It lies in each checkpoint as `layerimp.json`."""

    schema_version: Literal["layerimp.checkpoint/1"] = Field(
        default="layerimp.checkpoint/1", description="The version of this format."
    )
    source: str = Field(description="The model that it was made from: a path as seen from anywhere, or a name.")
    num_blocks: int = Field(ge=1, description="How many blocks that one has.")
    removed: tuple[Step, ...] = Field(
        description="What is gone, in depth order: blocks by their indices there, and seams such as `17/18`."
    )
    healers: tuple[str, ...] = Field(default=(), description="The healers that repaired it, in order.")

    def write(self, directory: Path) -> None:
        """Put it into a checkpoint."""
        (directory / FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_record(directory: Path) -> Record | None:
    """What a checkpoint's record says; None where it has none.

    Raises:
        InputError: it cannot be read, or is no record.
    """
    file = directory / FILE
    try:
        record = Record.model_validate_json(file.read_text(encoding="utf-8"))
        if "schema_version" not in record.model_fields_set:
            raise ValueError("it has no schema_version")
        return record
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except ValidationError as error:
        raise InputError(f"{file} is no record of a checkpoint: {first_problem(error)}") from None
    except ValueError as error:
        raise InputError(f"{file} is no record of a checkpoint: {error}") from None
