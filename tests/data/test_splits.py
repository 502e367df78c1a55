"""Splits are stratified, disjoint, complete and equal for equal seeds; limits only remove rows."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loralab.config import DataConfig
from loralab.data.hold_out import stratified
from loralab.data.splits import Splits, read_indices, split
from loralab.data.types import Examples
from loralab.errors import LoralabError


def examples(counts: Sequence[int], prefix: str = "text") -> Examples:
    """Return rows in random order; the text contains the row number."""
    labels = np.random.default_rng(7).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    names = tuple(f"class {i}" for i in range(len(counts)))
    return Examples([f"{prefix} {i}" for i in range(len(labels))], labels, np.arange(len(labels)), names)


def counts_of(part: Examples) -> list[int]:
    return list(np.bincount(part.require_labels(), minlength=len(part.classes)).tolist())


def divide(
    source: Examples,
    test: Examples | float = 0.2,
    validation: Examples | float = 0.1,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    **limits: Any,
) -> Splits:
    parts = {"test": test, "validation": validation}
    given = {name: rows for name, rows in parts.items() if isinstance(rows, Examples)}
    fractions = {name: value for name, value in parts.items() if name not in given}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.txt")
        if indices is not None:
            file.write_text("\n".join(map(str, indices)))
            limits |= {"train_indices": str(file)}
        # model_copy does not validate: impossible fractions reach the split
        return split(source, DataConfig().model_copy(update={**fractions, **limits, "split_seed": seed}), **given)


def rows(part: Examples | None) -> list[int]:
    return [] if part is None else part.rows.tolist()


def largest_remainders(counts: Sequence[int], size: int) -> list[list[int]]:
    """Hamilton's method: whole quotas, then one more for the largest remainders; all ways to break ties."""
    total = sum(counts)
    whole = [count * size // total for count in counts]
    remainders = [count * size % total for count in counts]
    left = size - sum(whole)
    if not left:
        return [whole]
    edge = sorted(remainders, reverse=True)[left - 1]
    above = [i for i, r in enumerate(remainders) if r > edge]
    tied = [i for i, r in enumerate(remainders) if r == edge]
    from itertools import combinations

    ways = combinations(tied, left - len(above))
    return [[whole[i] + (i in above or i in way) for i in range(len(counts))] for way in ways]


class_counts = st.lists(st.integers(1, 40), min_size=2, max_size=6)


@given(counts=class_counts, data=st.data(), seed=st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_stratified_uses_largest_remainders(counts: list[int], data: st.DataObject, seed: int) -> None:
    labels = examples(counts).require_labels()
    size = data.draw(st.integers(1, len(labels)))
    sample = stratified(labels, size, np.random.default_rng(seed))
    assert len(sample) == size
    assert (np.diff(sample) > 0).all()  # ascending, so none twice
    assert sample.min() >= 0
    assert sample.max() < len(labels)
    assert np.bincount(labels[sample], minlength=len(counts)).tolist() in largest_remainders(counts, size)


def test_stratified_samples_all_rows_uniformly() -> None:
    labels = np.arange(400, dtype=np.int64) % 4
    hits = np.zeros(400)
    for seed in range(200):
        hits[stratified(labels, 100, np.random.default_rng(seed))] += 1
    assert hits.min() >= 20  # 50 expected, deviation 6: no row is favoured or left out
    assert hits.max() <= 80


@given(counts=class_counts, test=st.floats(0.05, 0.6), validation=st.floats(0, 0.5), seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_splits_are_disjoint_complete_and_stratified(counts: list[int], test: float, validation: float, seed: int) -> None:
    source = examples(counts)
    try:
        parts = divide(source, test, validation, seed)
    except LoralabError:
        assume(False)
    whole = rows(parts.train) + rows(parts.validation) + rows(parts.test)
    assert sorted(whole) == list(range(len(source)))
    held = len(parts.test)
    assert held == round(test * len(source))
    shares = [count * held / len(source) for count in counts]
    keep = 1 if validation == 0 else 2
    crowded = any(np.ceil(share) > count - keep for count, share in zip(counts, shares, strict=True))
    for count, share, taken in zip(counts, shares, counts_of(parts.test), strict=True):
        assert taken >= (count > keep)
        # other shares: a class with a small share has a row too, and a small class keeps rows for the other parts
        assert abs(taken - share) < 1 or min(shares) < 1 or crowded
    assert (parts.validation is None) == (round(validation * (len(source) - held)) == 0)
    for part in parts.parts().values():
        assert part.classes == source.classes
        assert list(part.texts) == [source.texts[i] for i in part.rows]
        assert part.require_labels().tolist() == source.require_labels()[part.rows].tolist()
        assert (np.diff(part.rows) > 0).all()


def test_equal_seeds_give_equal_rows() -> None:
    source = examples([50, 30, 20])
    first, again, other = divide(source), divide(source), divide(source, seed=1)
    for name, part in first.parts().items():
        assert rows(part) == rows(again.parts()[name])
        assert rows(part) != rows(other.parts()[name])


def test_validation_rows_depend_on_the_seed_if_test_rows_are_given() -> None:
    source, test = examples([50, 30, 20]), examples([3, 3, 3])
    first, again, other = (divide(source, test=test, seed=seed) for seed in (0, 0, 1))
    assert rows(first.validation) == rows(again.validation) != rows(other.validation)


@pytest.mark.parametrize(
    ("test", "validation", "sizes"), [(0.2, 0.1, (72, 8, 20)), (20.0, 8.0, (72, 8, 20)), (0.5, 0.0, (50, 0, 50))]
)
def test_fractions_and_numbers_of_rows(test: float, validation: float, sizes: tuple[int, int, int]) -> None:
    parts = divide(examples([60, 40]), test=test, validation=validation)
    assert (len(parts.train), len(rows(parts.validation)), len(parts.test)) == sizes
    assert (parts.validation is None) == (sizes[1] == 0)
    assert set(parts.parts()) == {"train", "test"} | ({"validation"} if sizes[1] else set())


def test_given_rows_are_used_unchanged() -> None:
    source, test, validation = examples([30, 20]), examples([5, 5], "test"), examples([3, 4], "validation")
    parts = divide(source, test=test, validation=validation)
    assert rows(parts.train) == list(range(50))
    assert parts.test is not None
    assert parts.validation is not None
    assert (parts.test.fingerprint(), parts.test.rows.tolist()) == (test.fingerprint(), test.rows.tolist())
    assert (parts.validation.fingerprint(), parts.validation.rows.tolist()) == (validation.fingerprint(), validation.rows.tolist())
    assert len(divide(source, test=test).train) == 45


LIMITS: list[dict[str, Any]] = [
    {},
    {"max_train_samples": 40},
    {"max_train_samples": 80},
    {"max_train_samples": 10_000},
    {"shots_per_class": 5},
    {"shots_per_class": 10, "max_train_samples": 12},
    {"indices": list(range(0, 90, 2))},
]


@pytest.mark.parametrize("max_test_samples", [None, 20])
@pytest.mark.parametrize("own_test", [False, True])
def test_held_out_rows_are_the_same_under_every_limit(own_test: bool, max_test_samples: int | None) -> None:
    source = examples([60, 50, 40])
    test: dict[str, Any] = {"test": examples([40, 20, 20], "test")} if own_test else {}
    runs = [divide(source, max_test_samples=max_test_samples, **test, **limit) for limit in LIMITS]
    for run in runs[1:]:
        assert rows(run.validation) == rows(runs[0].validation)
        assert rows(run.test) == rows(runs[0].test)


@pytest.mark.parametrize("limit", LIMITS)
def test_training_rows_are_the_same_under_every_test_limit(limit: dict[str, Any]) -> None:
    source = examples([60, 50, 40])
    assert rows(divide(source, **limit).train) == rows(divide(source, max_test_samples=10, **limit).train)


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_only_remove(limit: dict[str, Any]) -> None:
    source = examples([60, 50, 40])
    assert set(rows(divide(source, **limit).train)) <= set(rows(divide(source).train))


def test_train_limit_keeps_proportions() -> None:
    parts = divide(examples([600, 300, 100]), max_train_samples=100)
    assert counts_of(parts.train) == [60, 30, 10]
    assert counts_of(divide(examples([600, 300, 100]), max_test_samples=20).test) == [12, 6, 2]


def test_limits_above_the_number_of_rows_change_nothing() -> None:
    source = examples([30, 20])
    assert rows(divide(source, max_train_samples=1000, max_test_samples=1000).train) == rows(divide(source).train)
    assert rows(divide(source, max_test_samples=1000).test) == rows(divide(source).test)


def test_shots_are_equal_for_all_classes() -> None:
    parts = divide(examples([100, 30, 20]), shots_per_class=8)
    assert counts_of(parts.train) == [8, 8, 8]
    assert len(set(rows(parts.train))) == 24


def test_too_many_shots_name_the_class_and_its_rows() -> None:
    with pytest.raises(LoralabError) as error:
        divide(examples([100, 10]), test=0.5, validation=0.0, shots_per_class=6)
    assert str(error.value) == "data.shots_per_class=6: class 'class 1' has 5 training rows; data.shots_per_class=5 would do"


def test_indices_pick_positions_among_the_training_rows() -> None:
    source = examples([50, 50])
    whole = rows(divide(source).train)
    picked = divide(source, indices=[7, 3, 0, 11, 12, 13, 14, 60])
    assert rows(picked.train) == [whole[i] for i in (0, 3, 7, 11, 12, 13, 14, 60)]
    own = divide(source, test=examples([2, 2]), validation=0.0, indices=[99, 0, 1, 2, 3, 4])
    assert rows(own.train) == [0, 1, 2, 3, 4, 99]


@pytest.mark.parametrize(
    ("indices", "expected"),
    [([0, 72], "row 72; the training rows are 0-71"), ([], "no row; the training rows are 0-71"), ([3, 4, 3], "names a row twice")],
)
def test_invalid_indices_are_refused(indices: list[int], expected: str) -> None:
    with pytest.raises(LoralabError) as error:
        divide(examples([60, 40]), indices=indices)
    assert str(error.value).startswith("data.train_indices")
    assert expected in str(error.value)


def test_negative_indices_are_refused() -> None:
    with pytest.raises(LoralabError, match=r"data\.train_indices.*-1"):
        divide(examples([60, 40]), indices=[0, 1, 2, 3, 4, 5, 6, -1])


def test_indices_without_a_row_of_a_class_are_refused() -> None:
    source = examples([60, 40])
    whole = divide(source).train
    of_one_class = np.flatnonzero(whole.require_labels() == 0).tolist()
    with pytest.raises(LoralabError, match="no training row is left of class 'class 1'"):
        divide(source, indices=of_one_class)


@pytest.mark.parametrize("name", ["test", "validation"])
@pytest.mark.parametrize("value", [-0.1, -5.0, 0.001, 0.999, 1.0, 99.0, 1000.0, float("nan"), float("inf")])
def test_impossible_fractions_name_the_setting(name: str, value: float) -> None:
    given: dict[str, Any] = {"validation": 0.0} if name == "test" else {"test": examples([3, 3])}
    with pytest.raises(LoralabError, match=rf"^data\.{name}="):
        divide(examples([60, 40]), **{**given, name: value})


@pytest.mark.parametrize(("validation", "rows"), [(0.2, (80, 20)), (0.0, (100, 0))])
def test_no_test_rows_are_held_out(validation: float, rows: tuple[int, int]) -> None:
    splits = divide(examples([60, 40]), test=0.0, validation=validation)
    assert splits.test is None
    assert (len(splits.train), len(splits.validation or ())) == rows
    assert "test" not in splits.fingerprints()


def test_a_class_without_training_rows_is_named() -> None:
    with pytest.raises(LoralabError, match=r"no training row is left of class 'class 1': .*\(data\.train_indices\) has none of it"):
        divide(examples([90, 5, 5]), indices=[0])
    last = int(np.flatnonzero(divide(examples([90, 5, 5])).train.require_labels() == 1)[0])
    with pytest.raises(LoralabError, match="no training row is left of class 'class 2'"):
        divide(examples([90, 5, 5]), indices=[0, last])


def test_limits_keep_a_row_of_each_class_or_propose_a_limit_that_does() -> None:
    source = examples([90, 5, 5])
    assert counts_of(divide(source, max_train_samples=3).train) == [1, 1, 1]
    assert counts_of(divide(source, max_train_samples=6).train) == [4, 1, 1]
    assert counts_of(divide(source, max_test_samples=4).test) == [2, 1, 1]
    assert len(divide(source, max_test_samples=2).test) == 2
    with pytest.raises(LoralabError) as error:
        divide(source, max_train_samples=2)
    assert str(error.value) == "data.max_train_samples=2: each of 3 classes needs a row; data.max_train_samples=3 would do"


def test_index_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("3\n0\n\n 12 \r\n")
    assert read_indices(path) == [3, 0, 12]


@pytest.mark.parametrize("word", ["-1", "2.0", "x", "1,2", "²", "0x1", "9" * 5000])
def test_invalid_entry_of_an_index_file_is_named(tmp_path: Path, word: str) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(f"3\n{word}\n", encoding="utf-8")
    with pytest.raises(LoralabError) as error:
        read_indices(path)
    assert "data.train_indices: " in str(error.value)
    assert "entry 2" in str(error.value)


def test_unreadable_index_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match=r"data\.train_indices: cannot read .*gone\.txt"):
        read_indices(tmp_path / "gone.txt")
    with pytest.raises(LoralabError, match=r"data\.train_indices: cannot read"):
        read_indices(tmp_path)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe1")
    with pytest.raises(LoralabError, match=r"data\.train_indices: cannot read"):
        read_indices(tmp_path / "bytes.txt")


def test_fewer_test_rows_than_classes_are_allowed() -> None:
    parts = divide(examples([10, 10, 10]), test=9, validation=0, max_test_samples=2)
    assert len(parts.test or ()) == 2
    with pytest.raises(LoralabError, match=r"max_train_samples=2: each of 3 classes needs a row; .*=3 would do"):
        divide(examples([10, 10, 10]), test=9, validation=0, max_train_samples=2)
    assert np.bincount(
        divide(examples([10, 10, 10]), test=9, validation=0, max_train_samples=3).train.require_labels()
    ).tolist() == [1, 1, 1]
