"""From a source's name to the rows of one run: read, divide, and say what a careful colleague would notice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from loralab.data.sources import Columns, load_source, missing_texts, read_examples
from loralab.data.splits import HELD_OUT_TEST, Splits, overlap, read_indices, split
from loralab.data.types import Examples
from loralab.errors import LoralabError, nearest


def load_splits(
    *,
    source: str,
    text: Sequence[str] | None,
    label: str | None,
    classes: Sequence[str],
    test: float | str | None,
    validation: float | str,
    split_seed: int,
    sample_seed: int | None,
    max_train_samples: int | None,
    max_test_samples: int | None,
    shots_per_class: int | None,
    train_indices: str | None,
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
        sample_seed=sample_seed,
        max_train_samples=max_train_samples,
        max_test_samples=max_test_samples,
        shots_per_class=shots_per_class,
        indices=read_indices(Path(train_indices)) if train_indices else None,
    )
    return splits, found.columns


def class_names_as_texts(classes: Sequence[str], descriptions: Mapping[str, Sequence[str]] | None, template: str) -> Examples:
    """Write what each class is called as texts labelled with it: each description set into `template`, or else the class's name.

    Raises LoralabError for a class without a description, and for a description of no class.
    """
    if descriptions is None:
        descriptions = {name: (name,) for name in classes}
    if unknown := [name for name in descriptions if name not in classes]:
        raise LoralabError(f"data.descriptions: {unknown[0]!r} is not a class{nearest(unknown[0], classes)}: {', '.join(classes)}")
    if missing := [name for name in classes if not descriptions.get(name)]:
        raise LoralabError(f"data.descriptions: class {missing[0]!r} has none; describe every class, or leave them all out")
    said = [(template.replace("{}", phrase), label) for label, name in enumerate(classes) for phrase in descriptions[name]]
    labels = np.array([label for _, label in said], dtype=np.int64)
    return Examples([text for text, _ in said], labels, np.arange(len(said)), tuple(classes))


def remarks(splits: Splits) -> list[str]:
    """Say what may be wrong with the rows of a run: texts missing, and test texts that are also trained on."""
    found = []
    for part, rows in (("training", splits.train), ("test", splits.test)):
        if empty := missing_texts(rows):
            found.append(f"{len(empty)} {part} rows have no text, such as row {empty[0]}; they are kept, as empty texts")
    if shared := overlap(splits.train, splits.test):
        found.append(f"{shared} of {len(splits.test)} test texts also stand in the training rows: the test score will flatter")
    return found
