"""What a trained model remembers about its data, so that no later file is guessed anew."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class DataContract:
    """Columns, file format and class values of the training rows.

    text, label, id: columns. values: the spellings of each class in the training file, by class name. format, delimiter, encoding,
    header: how the training file was read; None where they do not apply. rows: labelled rows of the training file by class name.
    """

    text: tuple[str, ...] = ()
    label: str | None = None
    id: str | None = None
    values: Mapping[str, tuple[str, ...]] | None = None
    format: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    header: bool | None = None
    rows: Mapping[str, int] | None = None
