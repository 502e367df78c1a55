"""WordNet: synonyms from a small handmade copy, equality with NLTK on the real one, and the error without WordNet."""

from __future__ import annotations

import os
import random
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from loralab import LoralabError, load_config
from loralab.data import wordnet
from loralab.data.wordnet import WordNet, find_wordnet
from loralab.pipeline import run_training

REAL = Path("/usr/share/wordnet")
LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
FILES = {  # offset, lexicographer's file, type, number of words (hexadecimal), words with ids, number of pointers, pointers | gloss
    "data.noun": "00000100 21 n 03 monetary_value 0 price 0 cost 0 001 @ 00000200 n 0000 | worth in money  \n"
    "00000200 21 n 01 goose 0 000 | a bird  \n"
    "00000300 18 n 02 fathead 0 goose 1 000 | a fool  \n"
    "00000400 18 n 02 Price 0 Leontyne_Price 0 000 | a singer  \n"
    "00000500 03 n 0a " + " ".join(f"w{i} 0" for i in range(10)) + " 000 | ten words  \n",
    "data.verb": "00000100 30 v 02 run 0 operate 2 000 01 + 02 00 | work  \n",
    "data.adj": "00000100 00 s 02 galore(ip) 0 abounding 0 000 | in abundance  \n"
    "00000200 00 a 02 good 0 full 1 000 | fine  \n",
    "data.adv": "00000100 02 r 02 well 0 good 0 000 | in a good manner  \n",
    "noun.exc": "geese goose\n",
    "verb.exc": "ran run\n",
    "adj.exc": "better good well\n",
    "adv.exc": "better well\n",
}  # fmt: skip


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text((LICENCE if name.startswith("data") else "") + text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cost", ["monetary value", "price"]),
        ("costs", ["monetary value", "price"]),
        ("price", ["Leontyne Price", "cost", "monetary value"]),
        ("PRICE", ["Leontyne Price", "cost", "monetary value"]),
        ("Monetary value", ["cost", "price"]),
        ("geese", ["fathead"]),
        ("geeses", []),
        ("running", []),  # as in WordNet, whose rules give `runn`
        ("ran", ["operate"]),
        ("operated", ["run"]),
        ("galore", ["abounding"]),
        ("good", ["full", "well"]),
        ("better", ["full"]),  # a synonym of its lemmas, good and well
        ("w9", [f"w{i}" for i in range(9)]),
        ("licensee", []),
        ("", []),
        ("—", []),
    ],
)
def test_synonyms_by_hand(small: Path, word: str, expected: list[str]) -> None:
    assert WordNet(small).synonyms(word) == expected


def test_folders_are_tried_in_order(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "nltk"
    (data / "corpora").mkdir(parents=True)
    with zipfile.ZipFile(data / "corpora" / "wordnet.zip", "w") as archive:
        for name in FILES:
            archive.write(small / name, f"wordnet/{name}")
    monkeypatch.setenv("NLTK_DATA", f"{tmp_path / 'nowhere'}:{data}")
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    packed = find_wordnet()
    assert str(packed.folder) == f"{data}/corpora/wordnet.zip/wordnet/"
    assert packed.synonyms("geese") == ["fathead"]
    shutil.copytree(small, data / "corpora" / "wordnet")
    assert find_wordnet().folder == data / "corpora" / "wordnet"
    monkeypatch.setenv("WNSEARCHDIR", str(small))
    assert find_wordnet().folder == small


def test_error_without_wordnet_names_both_ways_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Path, topics_csv: Path
) -> None:
    monkeypatch.setattr(wordnet, "_folders", lambda: iter([tmp_path]))
    config = load_config("quickstart", [f"model.base={tiny}", f"data.source={topics_csv}", "data.augment=insertion"])
    with pytest.raises(LoralabError, match=r"apt install wordnet-base(?s:.*)loralab\[augment\].*nltk.downloader wordnet"):
        run_training(config, folder=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    # ratio 0 needs no WordNet
    run_training(config.override("data.augment_ratio=0", "train.max_steps=1"), folder=tmp_path / "runs")


@pytest.mark.parametrize(
    ("file", "text"),
    [("data.noun", "00000100 21 n\n"), ("data.verb", "x x x zz run 0\n"), ("noun.exc", None), ("data.adj", b"\xff\xfe 1")],
)
def test_damaged_files_are_reported(small: Path, file: str, text: str | bytes | None) -> None:
    if text is None:
        (small / file).unlink()
    else:
        (small / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LoralabError, match="is not WordNet, or is damaged"):
        WordNet(small)


@pytest.mark.slow
@pytest.mark.wordnet
@pytest.mark.skipif(not (REAL / "data.noun").is_file(), reason="the Debian package wordnet-base is not installed")
@pytest.mark.filterwarnings("ignore:The multilingual functions are not available")
def test_real_synonyms_equal_those_of_nltk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pytest.importorskip("nltk.corpus.reader.wordnet")
    for file in REAL.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    (tmp_path / "lexnames").write_text("".join(f"{i:02d}\tx\t1\n" for i in range(45)))  # Debian's copy lacks these two
    (tmp_path / "index.sense").write_text("")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    monkeypatch.setattr(reader.WordNetCorpusReader, "map_wn", lambda self: {})  # maps to other versions need more data
    theirs: Any = reader.WordNetCorpusReader(str(tmp_path), None)
    ours = WordNet(REAL)
    lemmas = sorted(theirs._lemma_pos_offset_map)
    assert len(lemmas) > 140_000
    forms = [f"{stem}{end}" for stem in random.Random(0).sample(lemmas, 3000) for end in ("", "s", "es", "ed", "ing", "er")]
    forms += [form for part in "nvar" for form in theirs._exception_map[part]]
    known = 0
    for form in forms:
        own = {form, *(lemma for part in "nvar" for lemma in theirs._morphy(form, part))}
        names = {lemma.name() for meaning in theirs.synsets(form) for lemma in meaning.lemmas()}
        expected = sorted(name.replace("_", " ") for name in names if name.lower() not in own)
        assert ours.synonyms(form) == expected, form
        known += bool(expected)
    assert known > 3000


@pytest.mark.wordnet
@pytest.mark.skipif(not (REAL / "data.noun").is_file(), reason="the Debian package wordnet-base is not installed")
def test_real_synonyms_of_news_words() -> None:
    known = WordNet(REAL)
    assert {"petroleum", "crude oil"} <= {*known.synonyms("oil"), *known.synonyms("crude")}
    assert "damages" in known.synonyms("prices") or "cost" in known.synonyms("prices")
    assert known.synonyms("the") == []


def test_folders_are_those_of_nltk_and_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NLTK_DATA", os.pathsep.join(("/one", "", "/two")))
    monkeypatch.setenv("WNSEARCHDIR", "/named")
    roots = [
        "/one",
        "/two",
        f"{tmp_path}/nltk_data",
        *(f"{sys.prefix}/{own}" for own in ("nltk_data", "share/nltk_data", "lib/nltk_data")),
    ]
    roots += ["/usr/share/nltk_data", "/usr/local/share/nltk_data", "/usr/lib/nltk_data", "/usr/local/lib/nltk_data"]
    expected = ["/named", *(f"{root}/corpora/wordnet" for root in roots), "/usr/share/wordnet"]
    assert [str(folder) for folder in wordnet._folders() if not isinstance(folder, zipfile.Path)] == expected
    monkeypatch.delenv("WNSEARCHDIR")
    monkeypatch.delenv("NLTK_DATA")
    assert [str(folder) for folder in wordnet._folders() if not isinstance(folder, zipfile.Path)] == [*expected[3:]]
