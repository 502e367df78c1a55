"""Groups stay in one part; their classes are as near to their shares as the groups allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralab.config import DataConfig
from loralab.data.group_split import check_groups, choose_groups, shared_groups
from loralab.data.split_remarks import split_remarks
from loralab.data.splits import Splits, split
from loralab.data.types import Examples
from loralab.errors import LoralabError


def examples(labels: Sequence[int], groups: Sequence[object]) -> Examples:
    names = tuple(f"c{i}" for i in range(max(labels) + 1))
    return Examples([f"text {i}" for i in range(len(labels))], np.array(labels), np.arange(len(labels)), names, groups)


def two_classes(groups: Sequence[object]) -> Examples:
    return examples(np.random.default_rng(0).permutation(np.arange(len(groups)) % 2).tolist(), groups)


def divide(source: Examples, **settings: Any) -> Splits:
    return split(source, DataConfig(group="author", **settings))


def groups_of(parts: Splits) -> list[set[str]]:
    return [{str(name) for name in part.groups} for part in parts.parts().values() if part.groups]


def assert_apart(parts: Splits) -> None:
    groups = groups_of(parts)
    assert len(groups) == len(parts.parts())
    assert sum(map(len, groups)) == len(set.union(*groups))


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_divided_and_classes_keep_their_shares(seed: int) -> None:
    source = two_classes([f"author {i % 30}" for i in range(120)])
    parts = divide(source, split_seed=seed)
    assert_apart(parts)
    assert len(parts.test) == 24
    assert abs(int(parts.test.require_labels().sum()) - 12) <= 2
    assert any("test: 24 rows, 6 of 30 groups of data.group" in remark for remark in split_remarks(parts))
    again = divide(source, split_seed=seed)
    assert again.test.rows.tolist() == parts.test.rows.tolist()


def test_other_seeds_hold_out_other_groups() -> None:
    source = two_classes([i % 30 for i in range(120)])
    assert len({tuple(divide(source, split_seed=seed).test.rows.tolist()) for seed in range(5)}) == 5


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=8, max_size=60), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_groups_stay_together_and_training_keeps_every_class(rows: list[tuple[int, int]], seed: int) -> None:
    labels = [0, 1, 2, 3, *(label for label, _ in rows), 0]
    # Every class has a group of its own, and class 0 has two, so that one can always be held out.
    source = examples(labels, [*(f"g{label}" for label in range(4)), *(group for _, group in rows), "g4"])
    parts = divide(source, split_seed=seed)
    assert_apart(parts)
    assert set(parts.train.require_labels().tolist()) == {0, 1, 2, 3}
    assert sum(map(len, parts.parts().values())) == len(source)


def test_a_class_has_a_row_in_each_part_if_it_has_three_groups() -> None:
    labels = [i % 2 for i in range(300)] + [2] * 9
    parts = divide(examples(labels, [*(i // 5 for i in range(300)), *(100 + i // 3 for i in range(9))]))
    for part in parts.parts().values():
        assert np.bincount(part.require_labels())[2] == 3


def test_few_groups_are_held_out_as_far_as_they_can_be() -> None:
    parts = divide(two_classes([i % 3 for i in range(60)]))
    assert [len(part) for part in parts.parts().values()] == [20, 20, 20]
    assert "test: 20 rows instead of 12, 1 of 3 groups of data.group" in split_remarks(parts)
    parts = divide(two_classes([i // 30 for i in range(60)]))
    assert parts.validation is None
    assert "data.validation: no validation rows, because one group is left" in split_remarks(parts)


@pytest.mark.parametrize(
    ("labels", "groups", "amounts", "expected"),
    [
        ([0, 1] * 10, ["a"] * 20, {}, "no test rows, because one group is left; leave data.group out"),
        ([0, 1] * 10, ["a", "b"] * 10, {}, "each of the 2 groups left has the only rows of a class; leave data.group out"),
        ([0, 0, 1, 1] * 5, ["a", "b"] * 10, {"validation": 0.1}, "write data.validation=0, or leave data.group out"),
        ([0, 1] * 10, range(20), {"test": 20.0}, "data.test=20 holds out 20 of 20 rows; data.test=1 to data.test=19 would do"),
    ],
)
def test_groups_that_cannot_be_held_out_are_refused(
    labels: list[int], groups: Sequence[object], amounts: dict[str, float], expected: str
) -> None:
    with pytest.raises(LoralabError) as error:
        divide(examples(labels, groups), **amounts)
    assert expected in str(error.value)
    if "validation=0" in expected:
        divide(examples(labels, groups), validation=0.0)


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan")])
def test_rows_without_a_group_are_named(missing: object) -> None:
    with pytest.raises(LoralabError, match=r"data\.group: rows 1, 3 have no group: fill it in, or leave data.group out"):
        divide(examples([0, 1] * 5, ["a", missing, "b", missing, *"cdefgh"]))


def test_groups_and_times_are_not_combined() -> None:
    source = Examples(["x"] * 4, np.array([0, 1, 0, 1]), np.arange(4), ("a", "b"), [1, 2, 3, 4], [1, 2, 3, 4])
    with pytest.raises(LoralabError, match=r"data\.group and data\.time are both set: leave one out"):
        split(source, DataConfig())


def test_groups_in_training_and_in_a_given_file_are_counted() -> None:
    source, test = two_classes([f"a{i % 8}" for i in range(40)]), two_classes(["a1", "a2", "b", "a1"])
    remarks = split_remarks(split(source, DataConfig(validation=0.0), test=test))
    assert "3 test rows are of 2 groups (data.group) that also have training rows" in remarks


def test_many_groups_take_little_time() -> None:
    source = two_classes(range(40_000))
    parts = divide(source)
    assert len(parts.test) == 8000
    assert abs(int(parts.test.require_labels().sum()) - 4000) < 100


def test_joined_rows_keep_groups_and_times_that_both_have() -> None:
    with_groups = two_classes(["a", "b"])
    assert list(with_groups.join(with_groups).groups or ()) == ["a", "b", "a", "b"]
    timed = Examples(with_groups.texts, with_groups.labels, with_groups.rows, with_groups.classes, None, ["2026", "2027"])
    assert list(timed.join(timed).times or ()) == ["2026", "2027", "2026", "2027"]
    assert timed.join(with_groups).times is None
    plain = Examples(with_groups.texts, with_groups.labels, with_groups.rows, with_groups.classes)
    assert with_groups.join(plain).groups is None


def test_groups_are_chosen_by_their_rows_and_classes() -> None:
    labels, groups = np.array([0, 0, 1, 1, 0, 1, 0, 1]), np.array([0, 0, 0, 1, 2, 2, 3, 3])
    for seed in range(20):
        stream = np.random.default_rng(seed)
        chosen = choose_groups(labels, groups, 2, stream, np.array([1, 1]), grow=False).tolist()
        assert chosen in ([2], [3])  # two rows, one of each class
    assert (
        choose_groups(labels, np.zeros(8, dtype=np.int64), 2, np.random.default_rng(0), np.array([1, 1]), grow=True).tolist() == []
    )


def test_rows_without_a_group_are_refused_and_shared_groups_counted() -> None:
    rows = Examples(["a", "b", "c", "d"], np.array([0, 1, 0, 1]), np.array([5, 6, 7, 8]), ("x", "y"), ["g", None, " ", "h"])
    with pytest.raises(LoralabError, match=r"data\.group: rows 6, 7 have no group"):
        check_groups(rows)
    check_groups(rows.take(np.array([0, 3])))
    others = Examples(["e", "f", "i"], None, np.arange(3), (), ["h", "h ", None])
    assert (shared_groups(rows, others), shared_groups(others, rows)) == ((1, 2), (1, 1))
    assert shared_groups(rows, Examples(["e"], None, np.arange(1))) == (0, 0)


def test_classes_keep_their_proportions_in_groups_of_one_class() -> None:
    labels = np.repeat([0, 1], [60, 30])
    groups = np.arange(90) // 3  # 20 groups of class 0 and 10 of class 1
    for seed in range(5):
        chosen = choose_groups(labels, groups, 18, np.random.default_rng(seed), np.array([1, 1]), grow=False)
        assert np.bincount(labels[np.isin(groups, chosen)]).tolist() == [12, 6]
        assert np.array_equal(chosen, np.unique(chosen))
