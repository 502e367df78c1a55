"""From a source's name to the rows of one run: read, divide, and say what a careful colleague would notice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loralab.data.select import HELD_OUT_TEST, Splits, overlap, read_indices, split
from loralab.data.sources import Columns, load_source, missing_texts, read_examples
from loralab.data.values import Examples


def load_splits(
    *,
    source: str,
    text: Sequence[str] | None,
    label: str | None,
    classes: Sequence[str],
    test: float | str | None,
    validation: float | str,
    split_seed: int,
    draw_seed: int | None,
    train_limit: int | None,
    test_limit: int | None,
    shots_per_class: int | None,
    indices: str | None,
) -> tuple[Splits, Columns]:
    """Read the sources and divide them, by the settings of the same names. Parts given as files use the training rows' classes."""
    found = load_source(source, text=text, label=label, classes=classes)

    def part(value: float | str) -> Examples | float:
        if not isinstance(value, str):
            return value
        return read_examples(Path(value), text=text, label=label, classes=found.train.classes, need_labels=True)[0]

    own_test = found.test if found.test is not None else HELD_OUT_TEST
    splits = split(
        found.train,
        test=own_test if test is None else part(test),
        validation=part(validation),
        seed=split_seed,
        draw_seed=draw_seed,
        train_limit=train_limit,
        test_limit=test_limit,
        shots_per_class=shots_per_class,
        indices=read_indices(Path(indices)) if indices else None,
    )
    return splits, found.columns


def remarks(splits: Splits) -> list[str]:
    """Say what may be wrong with the rows of a run: texts missing, and test texts that are also trained on."""
    found = []
    for part, rows in (("training", splits.train), ("test", splits.test)):
        if empty := missing_texts(rows):
            found.append(f"{len(empty)} {part} rows have no text, such as row {empty[0]}; they are kept, as empty texts")
    if shared := overlap(splits.train, splits.test):
        found.append(f"{shared} of {len(splits.test)} test texts also stand in the training rows: the test score will flatter")
    return found
