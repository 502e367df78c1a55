"""Row weights: read, checked, and kept with their rows through splits, limits and augmentation."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import topics

from loralab import LoralabError
from loralab.config import DataConfig
from loralab.data.augment import augment, word_rewrites
from loralab.data.check import check_source
from loralab.data.row_weights import scale_weights
from loralab.data.sources import load_source
from loralab.data.splits import Splits, load_splits
from loralab.data.types import Examples


def put(path: Path, weights: Sequence[object], labels: Sequence[str] | None = None) -> Path:
    """Write a row for each weight. Its text ends with its number."""
    pairs = topics(len(weights) // 4 + 1)[: len(weights)]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", "w"])
        for i, ((text, label), weight) in enumerate(zip(pairs, weights, strict=True)):
            table.writerow([f"{text} {i}", label if labels is None else labels[i], weight])
    return path


def load(source: Path, **settings: object) -> Splits:
    return load_splits(DataConfig(source=str(source), weight="w", **settings))[0]  # type: ignore[arg-type]


def of_texts(examples: Examples) -> np.ndarray:
    """Return the weights by the numbers in the texts, for weights 1 + number."""
    return np.array([1.0 + int(text.split()[-1]) for text in examples.texts])


def test_rows_keep_their_weights_through_splits_limits_and_augmentation(tmp_path: Path) -> None:
    source = put(tmp_path / "a.csv", [1.0 + i for i in range(80)])
    for settings in ({}, {"max_train_samples": 20}, {"shots_per_class": 5}):
        splits = load(source, **settings)
        assert splits.train.weights is not None
        np.testing.assert_array_equal(splits.train.weights, of_texts(splits.train))
        assert splits.test is not None
        assert splits.validation is not None
        assert splits.test.weights is splits.validation.weights is None
    train = splits.train
    new, _ = augment(train, word_rewrites(["swap"], 0.1, None), ratio=1.0, seed=0)
    merged = replace(splits, augmented=new).merged().train
    weight_of = dict(zip(train.rows.tolist(), (train.weights if train.weights is not None else []), strict=True))
    assert merged.weights is not None
    assert len(merged) == 2 * len(train)
    assert merged.weights.tolist() == [weight_of[row] for row in merged.rows.tolist()]


def test_weights_choose_no_rows_and_change_the_training_fingerprint_alone(tmp_path: Path) -> None:
    source = put(tmp_path / "a.csv", [1.0 + i for i in range(80)])
    weighted, plain = load(source), load_splits(DataConfig(source=str(source)))[0]
    assert weighted.train.texts == plain.train.texts
    one, other = weighted.fingerprints(), plain.fingerprints()
    assert one["train"] != other["train"]
    assert (one["test"], one["validation"]) == (other["test"], other["validation"])
    assert plain.train.fingerprint() == replace(weighted.train, weights=None).fingerprint()


def test_the_column_and_the_range_are_a_notice(tmp_path: Path) -> None:
    source = load_source(DataConfig(source=str(put(tmp_path / "a.csv", [0.5, 3, 1, 2] * 10)), weight="w"))
    assert "row weights: column 'w', from 0.5 to 3" in [notice.message for notice in source.notices["train"]]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("", "row 5 has no weight: fill it in, or leave data.weight out"),
        ("nan", "'nan' in row 5 is not a weight: write finite numbers of at least 0"),
        ("inf", "'inf' in row 5 is not a weight"),
        ("-0.5", "'-0.5' in row 5 is not a weight"),
        ("heavy", "'heavy' in row 5 is not a weight"),
    ],
)
def test_an_invalid_weight_is_refused_with_its_row(tmp_path: Path, weight: str, message: str) -> None:
    source = put(tmp_path / "a.csv", [1.0] * 5 + [weight] + [2.0] * 34)
    with pytest.raises(LoralabError) as refusal:
        load(source)
    assert f"{source}, column 'w' (data.weight): {message}" in str(refusal.value)
    findings = [str(finding) for finding in check_source(DataConfig(source=str(source), weight="w"))[0].findings]
    assert any(message.split(";")[0].split(":")[0] in finding for finding in findings)


def test_weights_of_zero_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match="the weights of all 40 rows are 0: give some a weight above 0"):
        load(put(tmp_path / "a.csv", [0] * 40))
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join(map(str, range(20))), encoding="utf-8")
    source = put(tmp_path / "b.csv", [0] * 20 + [1] * 20)
    with pytest.raises(LoralabError, match=r"data\.weight, training rows: the weights of all 20 rows are 0"):
        load(source, test=0.0, validation=0.0, train_indices=str(rows))


def test_a_row_without_a_label_needs_no_weight(tmp_path: Path) -> None:
    labels = [label for _, label in topics(11)[:40]]
    splits = load(put(tmp_path / "a.csv", ["", *[1.0] * 39], ["", *labels[1:]]), test=0.0, validation=0.0)
    assert len(splits.train) == 39


def test_a_test_file_needs_no_weights(tmp_path: Path) -> None:
    source = put(tmp_path / "a.csv", [1.0, 2.0] * 20)
    test = tmp_path / "b.csv"
    test.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in topics(2)), encoding="utf-8")
    splits = load(source, test=str(test))
    assert splits.test is not None
    assert len(splits.test) == 8


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match=r"has no column 'weigth' \(data\.weight\)"):
        load_source(DataConfig(source=str(put(tmp_path / "a.csv", [1.0] * 40)), weight="weigth"))


def test_weights_are_scaled_to_mean_one_and_equal_ones_are_none() -> None:
    scaled = scale_weights(np.array([1.0, 2.0, 3.0]))
    assert scaled is not None
    np.testing.assert_allclose(scaled, [0.5, 1.0, 1.5])
    assert scale_weights(None) is None
    assert scale_weights(np.full(7, 0.3)) is None
    huge = scale_weights(np.array([1e308, 1e308, 0.5e308]))
    assert huge is not None
    assert huge.mean() == pytest.approx(1)
