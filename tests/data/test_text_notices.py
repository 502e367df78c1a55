"""Texts that are cut, emptied or unknown to the encoder are counted and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import invoke
from tiny import topics, write_csv

from loralab.data.augment import protected, show_techniques, word_rewrites
from loralab.data.clean import clean_text
from loralab.data.text_notices import loss_notices
from loralab.data.tokenize import encode, load_tokenizer, tokenizer_remarks
from loralab.data.types import Examples, TextFacts
from loralab.errors import LoralabError

STEPS = ("escapes", "html", "urls", "whitespace")
FAST = ["train.max_steps=1", "train.precision=fp32", "--no-report", "--overwrite", "--name", "run"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def facts(tiny: Path, texts: list[str], max_length: int = 16, clean: tuple[str, ...] = ()) -> TextFacts:
    examples = Examples(texts, None, np.arange(len(texts)))
    return encode(examples, tokenizer=load_tokenizer(tiny, max_length), clean=clean, pad_id=0).facts


def test_texts_beyond_the_limit_are_counted_with_their_tokens(tiny: Path) -> None:
    words = topics(1)[0][0].split()
    long, whole = " ".join(words * 20), facts(tiny, [" ".join(words)], 512)
    lengths = encode(Examples([long], None, np.arange(1)), tokenizer=load_tokenizer(tiny, 512), clean=(), pad_id=0).lengths
    cut = facts(tiny, [long, " ".join(words[:2])])
    assert (whole.cut, whole.lost) == (0, 0)
    assert (cut.cut, cut.lost) == (1, int(lengths[0]) - 16)


def test_texts_that_cleaning_empties_are_named(tiny: Path) -> None:
    assert facts(tiny, ["a", "https://a.b/c", "", "<br/>"], clean=STEPS).emptied == (1, 3)
    assert facts(tiny, ["https://a.b/c"]).emptied == ()


def test_unknown_tokens_are_counted(tiny: Path) -> None:
    assert facts(tiny, ["ዛሬ ይህ እቃ"], 64).unknown == 3
    assert facts(tiny, [topics(1)[0][0]], 64).unknown == 0


def test_losses_are_said_over_all_parts() -> None:
    parts = {"train": (40, 600, TextFacts(cut=40, lost=400)), "test": (8, 100, TextFacts(cut=2, lost=0, unknown=70))}
    cut, unknown = loss_notices(parts, 16, "minilm")
    assert "40 of 40 train, 2 of 8 test texts are longer than data.max_length=16 tokens: the rest, 36% of all tokens" in cut
    assert "10% of the tokens are unknown to minilm" in unknown
    assert "model.base=xlm-roberta-base" in unknown
    assert loss_notices({"": (9, 100, TextFacts(unknown=5))}, 16, "minilm") == []


def test_a_run_and_its_predictions_say_what_they_do_not_read(tiny: Path) -> None:
    rows = [(f"{text} " * 9, label) for text, label in topics(12)]
    write_csv(Path("long.csv"), rows)
    out = " ".join(invoke("train", "long.csv", f"model.base={tiny}", "data.max_length=16", *FAST).out.split())
    assert "texts are longer than data.max_length=16 tokens" in out
    out = " ".join(invoke("predict", "runs/run", "--file", "long.csv", "--out", "p.csv").out.split())
    assert "48 of 48 texts are longer than data.max_length=16 tokens" in out


def test_a_limit_beyond_the_encoder_is_said(tiny: Path) -> None:
    write_csv(Path("a.csv"), topics(12))
    out = " ".join(invoke("train", "a.csv", f"model.base={tiny}", "data.max_length=4096", *FAST).out.split())
    assert "data.max_length=4096: " in out
    assert "tokens of a text at most" in out


# Cleaning


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("详情见https://t.cn/abc这款手机很差", "详情见 这款手机很差"),
        ("[shop](https://ex.com/a),then_bad", "[shop]( ),then_bad"),
        ("see (https://ex.com/a).Awful", "see ( ).Awful"),
        ("see https://en.wikipedia.org/wiki/A_(b) now", "see now"),
        ("awww.that is nice", "awww.that is nice"),
        ("lowww.price", "lowww.price"),
        ("www.ex.com，差评", "，差评"),
        ("good|https://a.b/c|bad", "good| |bad"),
        ("https://a.b/cвсё плохо", "всё плохо"),
        ("Site:http://ex.com/a,never again", "Site: ,never again"),
        ('<a href="https://a.b">very bad</a>', "very bad"),
        ("List<String> x", "List<String> x"),
        ("a<b and c>d", "a<b and c>d"),
        ("I <3 this", "I <3 this"),
        ("<order id> is late<br/>again", "<order id> is late again"),
        ('<FONT face="a,b" size="-2">x</FONT>', "x"),
        (r"line one\nLine two", "line one Line two"),
        (r"C:\new\temp", "C: new temp"),
        (r"dwindling\band", "dwindling band"),
        (r"caf\u00e9", "café"),
        ("the quot;big quot; one", 'the "big" one'),
        ("it #39;s", "it's"),
    ],
)
def test_cleaning_keeps_what_only_looks_like_markup(text: str, expected: str) -> None:
    assert clean_text(text, STEPS) == expected
    assert clean_text(expected, STEPS) == expected


# Tokenizers


def vocabulary(folder: Path, settings: str = "") -> Path:
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Apple", "apple", "papá", "papa", "体", "育", "体育", "x"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(settings)
    return folder


@pytest.mark.parametrize(
    "settings",
    ["", "{}", '{"do_lower_case": false}', '{"do_lower_case": true, "strip_accents": false}', '{"tokenize_chinese_chars": false}'],
)
def test_a_vocabulary_is_read_as_transformers_reads_it(settings: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = vocabulary(Path("vocabulary"), settings)
    text = "Apple apple papá 体育 x"
    expected = transformers.BertTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert load_tokenizer(folder, 64).encode(text).ids == expected


@pytest.mark.parametrize(
    ("settings", "said"), [("", True), ("{}", True), ('{"do_lower_case": false}', False), ('{"do_lower_case": true}', False)]
)
def test_a_vocabulary_with_capitals_is_remarked_on(settings: str, said: bool) -> None:
    remarks = tokenizer_remarks(vocabulary(Path("vocabulary"), settings))
    assert bool(remarks) == said
    assert all("'Apple' is read as 'apple'" in remark for remark in remarks)


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("sentencepiece.bpe.model",), ("spiece.model",)])
def test_a_tokenizer_in_an_old_form_gets_the_command_that_converts_it(names: tuple[str, ...]) -> None:
    folder = Path("old")
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    with pytest.raises(LoralabError, match=r"AutoTokenizer\.from_pretrained") as error:
        load_tokenizer(folder, 64)
    assert ", ".join(names) in str(error.value)


# Augmentation


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("I do not like it, never again", ["not", "never"]),
        ("the parcel [ORDER NO] of {name} is late", ["[ORDER", "NO]", "{name}"]),
        ("ask @support about #12 or %s and %NAME%", ["@support", "#12", "%s", "%NAME%"]),
        ("see https://a.b/c or x@y.example", ["https://a.b/c", "x@y.example"]),
        ("it isn't bad, don’t worry", ["isn't", "don’t"]),
        ("a < b and c", []),
        ("nothing here", ["nothing"]),
    ],
)
def test_placeholders_and_negations_are_protected(text: str, fixed: list[str]) -> None:
    words = text.split()
    assert [words[i] for i in sorted(protected(words))] == fixed


@pytest.mark.parametrize("technique", ["deletion", "swap", "insertion", "synonym"])
def test_augmented_texts_keep_them_in_place_or_order(technique: str) -> None:
    text = "I do not like the [ORDER NO] of @shop and never will buy the red lamp again"
    rewrites = word_rewrites([technique], 0.4, lambda word: ["other"])
    for seed in range(60):
        words = show_techniques(text, rewrites, seed)[1][1].split()
        kept = [words[i] for i in sorted(protected(words))]
        assert kept == ["not", "[ORDER", "NO]", "@shop", "never"]
