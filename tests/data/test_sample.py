"""The built-in data: size, classes, lengths, borderline texts, no duplicates, nothing copied from AG News."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

import pytest

from loralab.config import DataConfig
from loralab.data.sources import load_source

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
FOLDER = Path(str(resources.files("loralab.data") / "sample"))
SHARED = Path(__file__).parents[2].parent / "shared" / "ag_news"

Row = dict[str, str]
Shingle = tuple[str, ...]


def read(name: str) -> list[Row]:
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


@pytest.fixture(scope="module")
def parts() -> dict[str, list[Row]]:
    return {name: read(name) for name in ("train", "test")}


@pytest.fixture(scope="module")
def briefs(parts: Mapping[str, list[Row]]) -> list[Row]:
    return [row for rows in parts.values() for row in rows]


def text(row: Mapping[str, str]) -> str:
    return f"{row['title']} {row['description']}"


def words(line: str) -> list[str]:
    return re.findall(r"[^\W_]+", line.lower())


def shingles(line: str, size: int = 5) -> set[Shingle]:
    tokens = words(line)
    return {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}


def alike(first: Iterable[str], second: Iterable[str]) -> list[tuple[int, int]]:
    """Pairs (of `first`, of `second`) that share more than half of the shingles of the shorter one."""
    holders: dict[Shingle, list[int]] = defaultdict(list)
    sizes = []
    for i, line in enumerate(first):
        own = shingles(line)
        sizes.append(len(own))
        for shingle in own:
            holders[shingle].append(i)
    pairs = []
    for j, line in enumerate(second):
        own = shingles(line)
        shared = Counter(i for shingle in own for i in holders.get(shingle, ()))
        pairs += [(i, j) for i, count in shared.items() if count > min(sizes[i], len(own)) / 2]
    return pairs


def test_similar_detects_a_copy_with_a_few_words_changed() -> None:
    line = "the mayor of the harbour town said on monday that the old bridge would be closed for repairs until late spring"
    near = line.replace("monday", "tuesday")
    far = "a striker who had not scored since august put two past the champions in the last nine minutes on saturday night"
    assert alike([line, far], [near]) == [(0, 0)]
    assert alike([line], [line]) == [(0, 0)]
    assert alike([line], [far]) == []


def test_there_are_1200_briefs_200_and_100_of_each_class(parts: Mapping[str, list[Row]], briefs: list[Row]) -> None:
    assert len(briefs) >= 1200
    assert Counter(row["label"] for row in parts["train"]) == dict.fromkeys(CLASSES, 200)
    assert Counter(row["label"] for row in parts["test"]) == dict.fromkeys(CLASSES, 100)


def test_every_brief_has_a_title_and_15_to_60_words(briefs: list[Row]) -> None:
    for row in briefs:
        assert row["title"].strip() == row["title"] != ""
        assert row["description"].strip() == row["description"] != ""
        assert 15 <= len(text(row).split()) <= 60, row


def test_a_quarter_is_between_two_classes(briefs: list[Row]) -> None:
    on_border = [row for row in briefs if row["border"]]
    assert len(on_border) >= len(briefs) / 4
    for row in on_border:
        assert row["border"] in CLASSES
        assert row["border"] != row["label"]
    pairs = Counter(frozenset((row["label"], row["border"])) for row in on_border)
    for pair in (("Business", "Sci/Tech"), ("World", "Business"), ("World", "Sports")):
        assert pairs[frozenset(pair)] >= 50, pair


def test_borderline_briefs_are_in_both_files(parts: Mapping[str, list[Row]]) -> None:
    for rows in parts.values():
        for name in CLASSES:
            of_class = [row for row in rows if row["label"] == name]
            assert sum(bool(row["border"]) for row in of_class) >= len(of_class) / 4


def test_no_two_briefs_share_half_of_their_words_in_a_row(briefs: list[Row]) -> None:
    texts = [text(row) for row in briefs]
    assert [pair for pair in alike(texts, texts) if pair[0] != pair[1]] == []


def test_titles_and_openings_are_varied(briefs: list[Row]) -> None:
    assert len({row["title"].casefold() for row in briefs}) == len(briefs)
    openings = Counter(tuple(words(row["description"])[:3]) for row in briefs)
    assert openings.most_common(1)[0][1] <= len(briefs) // 50
    lengths = sorted(len(text(row).split()) for row in briefs)
    assert lengths[len(lengths) // 10] < 30
    assert lengths[-len(lengths) // 10] > 48


def test_the_files_are_plain_csv(parts: Mapping[str, list[Row]]) -> None:
    for name, rows in parts.items():
        data = (FOLDER / f"{name}.csv").read_bytes()
        assert not data.startswith(b"\xef\xbb\xbf")
        assert b"\r" not in data
        assert set(rows[0]) == {"title", "description", "label", "border"}
        assert all(None not in row and None not in row.values() for row in rows)
        assert all("\n" not in value for row in rows for value in row.values())


def test_the_readme_has_the_right_counts(parts: Mapping[str, list[Row]], briefs: list[Row]) -> None:
    readme = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    assert f"{len(briefs):,} short news briefs" in readme
    assert "CC0 1.0" in readme
    assert "CC0" in (FOLDER / "LICENSE").read_text(encoding="utf-8")
    for name, rows in parts.items():
        assert f"{sum(bool(row['border']) for row in rows)} in `{name}.csv`" in readme


def test_loralab_reads_all_of_it(parts: Mapping[str, list[Row]]) -> None:
    source = load_source(DataConfig())
    assert source.test is not None
    for name, examples in (("train", source.train), ("test", source.test)):
        assert list(examples.texts) == [text(row) for row in parts[name]]
        assert [CLASSES[i] for i in examples.require_labels()] == [row["label"] for row in parts[name]]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/ag_news")
def test_no_brief_is_from_ag_news(briefs: list[Row]) -> None:
    theirs = []
    for name in ("train.csv", "test.csv"):
        with (SHARED / name).open(encoding="utf-8", newline="") as file:
            theirs += [row["text"] for row in csv.DictReader(file)]
    assert len(theirs) == 13_800
    assert alike([text(row) for row in briefs], theirs) == []
    headings = {" ".join(words(line)) for line in theirs}
    for row in briefs:
        title = " ".join(words(row["title"]))
        assert len(title.split()) < 5 or not any(line.startswith(title + " ") for line in headings), row["title"]
