"""Texts that are cut, emptied or unknown to the encoder are counted and said."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import invoke
from tiny import make_checkpoint, topics, write_csv
from tokenizers import ByteLevelBPETokenizer

from loralab.data.augment import augmentation_remark, protected, show_techniques, word_rewrites
from loralab.data.clean import clean_text
from loralab.data.text_notices import longer_limit, loss_notices
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


def test_losses_are_said_by_part() -> None:
    parts = {"train": (40, 640, TextFacts(cut=40, lost=360)), "test": (8, 116, TextFacts(cut=2, lost=0, unknown=70, special=16))}
    cut, unknown = loss_notices(parts, 16, "minilm")
    assert cut.startswith(
        "40 of 40 train, 2 of 8 test texts are longer than data.max_length=16 tokens: the rest, 35% of their tokens"
    )
    assert unknown.startswith("70% of the test tokens are unknown to minilm: ")
    assert "model.base=xlm-roberta-base" in unknown
    assert loss_notices({"": (9, 100, TextFacts(unknown=5))}, 16, "minilm") == []
    everywhere = {part: (9, 100, TextFacts(unknown=50)) for part in ("train", "test")}
    assert loss_notices(everywhere, 16, "minilm")[0].startswith("50% of the tokens are unknown")
    assert "less than 1% of their" in loss_notices({"": (9, 999, TextFacts(cut=9, lost=1))}, 128, "minilm")[0]


def test_special_tokens_are_no_part_of_the_unknown_share(tiny: Path) -> None:
    encoded = encode(Examples(["ዛሬ ይህ", "እቃ"], None, np.arange(2)), tokenizer=load_tokenizer(tiny, 64), clean=(), pad_id=0)
    (notice,) = loss_notices({"": (2, len(encoded.tokens), encoded.facts)}, 64, "minilm")
    assert notice.startswith("100% of the tokens are unknown")


@pytest.mark.parametrize(
    ("needed", "max_length", "positions", "expected"),
    [
        (300, 128, 512, "data.max_length=320 reads all of them, and takes more time"),
        (3000, 128, 512, "data.max_length=512 reads as much as minilm can, and takes more time"),
        (3000, 512, 512, "minilm reads no more than 512 tokens"),
        (3000, 512, 8192, "data.max_length=3008 reads all of them, and takes more time"),
    ],
)
def test_a_longer_limit_is_proposed_where_the_encoder_has_one(needed: int, max_length: int, positions: int, expected: str) -> None:
    assert longer_limit(needed, max_length, positions, "minilm") == expected


def test_the_proposed_limit_cuts_nothing(tiny: Path) -> None:
    rows = [(f"{text} " * 5, label) for text, label in topics(12)]
    write_csv(Path("long.csv"), rows)
    out = " ".join(invoke("train", "long.csv", f"model.base={tiny}", "data.max_length=16", *FAST).out.split())
    match = re.search(r"(data.max_length=\d+) reads all of them", out)
    assert match is not None, out
    assert "longer than" not in invoke("train", "long.csv", f"model.base={tiny}", match[1], *FAST).out


def test_rows_that_cleaning_empties_are_said_before_training(tiny: Path) -> None:
    rows = topics(12)
    rows[5:9] = [(f"https://a.b/{i}", label) for i, (_, label) in enumerate(rows[5:9])]
    write_csv(Path("a.csv"), rows)
    out = " ".join(invoke("train", "a.csv", f"model.base={tiny}", "data.clean=urls,whitespace", *FAST).out.split())
    assert "4 texts are empty after cleaning, such as row 5 (" in out
    counts = re.search(r"row 5 \(\w+\): ((?:\d+ \w+(?:, )?)+); data.clean=none keeps them", out)
    assert counts is not None
    assert sum(map(int, re.findall(r"\d+", counts[1]))) == 4


def test_a_limit_beyond_512_reads_more(tmp_path: Path) -> None:
    wide = make_checkpoint(tmp_path / "wide", max_position_embeddings=1030)
    write_csv(Path("long.csv"), [(f"{text} " * 60, label) for text, label in topics(3)])
    out = invoke("train", "long.csv", f"model.base={wide}", "data.max_length=1024", "data.test=4", "data.validation=4", *FAST).out
    assert "longer than" not in out
    assert "at most" not in out


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
    assert json.loads(Path("runs/run/model/loralab.json").read_text(encoding="utf-8"))["max_length"] == 160
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
    ("settings", "said"), [("", True), ("{}", True), ('{"do_lower_case": false}', False), ('{"do_lower_case": true}', True)]
)
def test_a_vocabulary_with_capitals_is_remarked_on(settings: str, said: bool) -> None:
    remarks = tokenizer_remarks(vocabulary(Path("vocabulary"), settings))
    assert bool(remarks) == said
    assert all("'Apple' is read as 'apple'" in remark for remark in remarks)


@pytest.mark.parametrize(
    "names",
    [
        *(("vocab.json", "merges.txt"), ("sentencepiece.bpe.model",), ("spiece.model",), ("spm.model",), ("tokenizer.model",)),
        *(("bpe.codes", "vocab.txt"), ("vocab.txt", "added_tokens.json")),
    ],
)
def test_a_tokenizer_in_an_old_form_gets_the_command_that_converts_it(names: tuple[str, ...]) -> None:
    folder = Path("old")
    folder.mkdir()
    for name in names:
        (folder / name).write_text('{"x": 1}')
    with pytest.raises(LoralabError, match=r"AutoTokenizer\.from_pretrained") as error:
        load_tokenizer(folder, 64)
    assert ", ".join(names) in str(error.value)


def test_the_printed_command_converts_a_tokenizer(tmp_path: Path) -> None:
    """The folder is one that Transformers can read; its name has characters of a shell."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "a 'folder' $x"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    trained = ByteLevelBPETokenizer()
    texts = [text for text, _ in topics(20)]
    trained.train_from_iterator(texts, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.save_model(str(folder))
    with pytest.raises(LoralabError) as error:
        load_tokenizer(folder, 64)
    _, *command = shlex.split(str(error.value).splitlines()[-1])
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    expected = transformers.AutoTokenizer.from_pretrained(folder)(texts)["input_ids"]
    assert [encoding.ids for encoding in load_tokenizer(folder, 64).encode_batch(texts)] == expected


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("bert", {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": {"__type": "AddedToken", "content": "</s>"}}),
        ("distilbert", {"do_lower_case": False, "strip_accents": True}),
        ("electra", {"tokenize_chinese_chars": False, "do_lower_case": True, "strip_accents": False}),
        ("mobilebert", {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_settings_of_a_tokenizer_are_followed_as_in_transformers(model_type: str, settings: dict[str, Any], whole: bool) -> None:
    """Also where tokenizer.json says otherwise: tokenizer_config.json overrules it."""
    transformers = pytest.importorskip("transformers")
    folder = vocabulary(Path("vocabulary"))
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("<s>\n</s>\n<unk>\nß\ni\n##s\n")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if whole:
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        settings = {key: value for key, value in settings.items() if not key.endswith("_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    text = "Apple apples papá 体育 x ß PAPÁ unknown"
    assert load_tokenizer(folder, 64).encode(text).ids == transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]


@pytest.mark.parametrize("model_type", ["mpnet", "roberta"])
def test_a_vocabulary_that_is_not_berts_is_not_read_as_berts(model_type: str) -> None:
    folder = vocabulary(Path("vocabulary"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(LoralabError, match="old form"):
        load_tokenizer(folder, 64)


def test_a_tokenizer_without_another_form_is_refused() -> None:
    folder = vocabulary(Path("vocabulary"), '{"tokenizer_class": "BertJapaneseTokenizer"}')
    with pytest.raises(LoralabError, match=r"BertJapaneseTokenizer has no tokenizer\.json"):
        load_tokenizer(folder, 64)


def test_damaged_settings_are_named() -> None:
    folder = vocabulary(Path("vocabulary"), "[")
    with pytest.raises(LoralabError, match=r"settings in .*tokenizer_config\.json"):
        load_tokenizer(folder, 64)


# Augmentation


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("I do not like it, never again", ["not", "never"]),
        ("the parcel [ORDER NO] of {name} is late", ["[ORDER", "NO]", "{name}"]),
        ("ask @support about #12 or %s and %NAME%", ["@support", "#12", "%s", "%NAME%"]),
        ("see https://a.b/c or x@y.example", ["https://a.b/c", "x@y.example"]),
        ("it isn't bad, don’t worry", ["isn't", "don’t"]),
        ("([ORDER NO 12]) of {first name}'s <order id>, ok", ["([ORDER", "NO", "12])", "{first", "name}'s", "<order", "id>,"]),
        (
            "%(name)s %d %1$s %.2f 50% {{x}} ${y} $NAME :smile:",
            ["%(name)s", "%d", "%1$s", "%.2f", "{{x}}", "${y}", "$NAME", ":smile:"],
        ),
        ("shop.example/x or example.com, not v1.2.3", ["shop.example/x", "example.com,", "not"]),
        ("it is not-so-good, NO-ONE dont care", ["not-so-good,", "NO-ONE", "dont"]),
        ("nicht gut, n'est pas bon, никогда", ["nicht", "n'est", "pas", "никогда"]),
        ("[a long part of the text in brackets] ok", []),
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


@pytest.mark.parametrize(
    ("texts", "techniques", "reason"),
    [
        (
            ["今天天气很好", "不要", "a b"],
            ["deletion"],
            "2 of 3 texts are one word (words end at a space; Chinese, Japanese and Thai",
        ),
        (["[NAME] not", "a b"], ["swap"], "1 of 2 texts is only words that are kept: negations, placeholders, addresses"),
        (["", "a b"], ["swap"], "1 of 2 texts is empty"),
        (["zzz qqq"], ["synonym"], "no other word has a synonym in WordNet, which is English"),
        (["a b"], ["swap"], "the other texts have too few words that a technique may change"),
    ],
)
def test_why_rows_could_not_be_made_is_said(texts: list[str], techniques: list[str], reason: str) -> None:
    remark = augmentation_remark({}, 7, texts, techniques)
    assert f"7 more were requested, but no technique could make them: {reason}" in remark


@pytest.mark.timed
@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ["<", "[", "@", "-", "!", "a.", "a@", "%", "__", "a-"])
def test_hostile_words_are_fast(piece: str) -> None:
    protected([piece * 50_000])
    protected([piece] * 50_000)


def test_a_run_on_texts_without_spaces_says_why_no_row_is_made(tiny: Path) -> None:
    write_csv(Path("zh.csv"), [(f"今天天气很好{i}", "ab"[i % 2]) for i in range(40)])
    settings = [f"model.base={tiny}", "data.augment=deletion,swap", "data.augment_ratio=0.5"]
    out = " ".join(invoke("train", "zh.csv", *settings, *FAST).out.split())
    assert re.search(r"0 augmented rows .* (\d+) of \1 texts are one word", out)
