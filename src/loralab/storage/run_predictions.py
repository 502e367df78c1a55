"""Read predictions.csv of a run: every test row with its number, class, prediction, confidence, logits and text."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from loralab.errors import LoralabError
from loralab.safe_files import MAX_LINE_CHARACTERS, MAX_PREDICTIONS_BYTES, exists, open_file
from loralab.storage import run_folder
from loralab.storage.files import csv_field_limit


def open_predictions(folder: Path) -> IO[str] | None:
    """Open a run's predictions.csv, after a check of its checksum; None for a run without them.

    Raises LoralabError for a file that is damaged or of another run.
    """
    run_folder.check_recorded(folder, run_folder.PREDICTIONS)
    if not exists(folder / run_folder.PREDICTIONS):
        return None
    return io.TextIOWrapper(open_file(folder / run_folder.PREDICTIONS, MAX_PREDICTIONS_BYTES), encoding="utf-8", newline="")


@contextlib.contextmanager
def prediction_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of reading a damaged predictions.csv into a LoralabError."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        raise LoralabError(
            f"cannot read {folder / run_folder.PREDICTIONS} ({error!r}): restore it, or delete it for a report without predictions"
        ) from error


def prediction_rows(file: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of an open predictions.csv. Raises csv.Error for a damaged one."""
    with csv_field_limit(MAX_LINE_CHARACTERS):
        for row in csv.DictReader(_lines(file), strict=True):
            if None in row or None in row.values():
                raise csv.Error(f"a row has {'more' if None in row else 'fewer'} cells than the header")
            yield row


def read_test_texts(folder: Path, limit: int | None = None) -> tuple[list[str], list[str]]:
    """Return the first `limit` test texts of a complete run and their true classes. An incomplete run has none.

    Raises LoralabError for a damaged file.
    """
    with prediction_errors(folder):
        file = open_predictions(folder)
        if file is None:
            return [], []
        with file:
            rows = [(row["text"], row["true"]) for row in itertools.islice(prediction_rows(file), limit)]
    return [text for text, _ in rows], [true for _, true in rows]


def _lines(file: Any) -> Iterator[str]:
    """Yield the lines of a text file. Raises csv.Error for one that is too long to be a row's."""
    while line := file.readline(MAX_LINE_CHARACTERS + 1):
        if len(line) > MAX_LINE_CHARACTERS:
            raise csv.Error(f"a line has more than {MAX_LINE_CHARACTERS:,} characters")
        yield line
