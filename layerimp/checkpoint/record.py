"""The record of a checkpoint: a file beside the weights that says what it was made from, and that healing reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_serializer, field_validator

from layerimp.component import Plain, versioned
from layerimp.errors import InputError, OptionError, first_problem
from layerimp.indices import checked_blocks

FILE = "layerimp.json"
"""The name of the file in a checkpoint."""


class ReservedText(Plain):
    """Text that is kept apart, so that the fidelity of a checkpoint can be measured on it."""

    source: str
    """The text: an absolute path, or a name."""
    documents: tuple[str, ...]
    """The hashes of its documents."""
    among: int
    """The number of documents that these were chosen from: the first ones of a data set, and all of a file."""

    @field_validator("documents", mode="before")
    @classmethod
    def _parted(cls, value: Any) -> Any:
        return tuple(value.split()) if isinstance(value, str) else value

    @field_serializer("documents")
    def _joined(self, documents: tuple[str, ...]) -> str:
        return " ".join(documents)


class Record(Plain):
    """What was removed from which model, and which healers repaired it. Each checkpoint has it as `layerimp.json`."""

    schema_version: Literal["layerimp.checkpoint/1"] = versioned("layerimp.checkpoint/1")
    source: str
    """The model that the checkpoint was made from: an absolute path, or a name."""
    num_blocks: int = Field(ge=1)
    """The number of blocks of that model."""
    removed: tuple[int, ...]
    """The removed blocks in order, by their indices in that model."""
    healers: tuple[str, ...] = ()
    """The healers that repaired the model, in order."""
    fidelity_text: ReservedText | None = None
    """Text that neither scorers nor healers have read; null if none was kept apart."""
    files: tuple[str, ...] = ()
    """The files of the checkpoint, by which others beside them are recognised; empty if they are not known."""

    @field_validator("removed", mode="before")
    @classmethod
    def _sound(cls, removed: Any, info: ValidationInfo) -> Any:
        count = info.data.get("num_blocks")
        return removed if count is None else checked_blocks(removed, count, what="removed block")

    def write(self, directory: Path) -> None:
        """Write the record into a checkpoint whose other files are written."""
        files = tuple(sorted({FILE, *(entry.name for entry in directory.iterdir())}))
        record = self.model_copy(update={"files": files})
        (directory / FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_record(directory: Path) -> Record | None:
    """Read a checkpoint's record; None if it has none.

    Raises:
        InputError: the file cannot be read, or is not a record.
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
    except (OptionError, ValueError) as error:
        raise InputError(f"{file} is no record of a checkpoint: {error}") from None
