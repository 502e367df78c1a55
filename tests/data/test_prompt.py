"""Prompts: equal to tokenizing the whole sentence, with a WordPiece and a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import CLASSES
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from loralab.data.prompt import Prompt, description_texts, set_prompt
from loralab.data.tokenize import load_tokenizer
from loralab.data.types import Examples
from loralab.errors import LoralabError

TEXTS = ["", "Shares", "Shares of the bank", "goal! " * 40]


def names(*words: str) -> Examples:
    return Examples(words or CLASSES, np.arange(len(words) or 4), np.arange(len(words) or 4), words or CLASSES)


def bytes_tokenizer() -> Tokenizer:
    """A tokenizer like RoBERTa's: byte-level, a space belongs to the next word, and the mask absorbs the space before it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("o", "f"), ("Ġ", "of"), ("Ġ", "S"), ("Ġ", "t")]
    pieces = ["<s>", "<pad>", "</s>", "<mask>", *letters, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", AddedToken("<mask>", lstrip=True)])
    tokenizer.enable_truncation(64)
    return tokenizer


@pytest.fixture(params=["words", "bytes"])
def tokenizer(request: pytest.FixtureRequest, tiny: Path) -> Tokenizer:
    return bytes_tokenizer() if request.param == "bytes" else load_tokenizer(tiny, 64)


def read(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


@pytest.mark.parametrize(
    ("template", "whole"),
    [
        ("This is of {}.", "TEXT This is of MASK."),
        ("{}", "TEXT MASK"),
        ("{}: {text}", "MASK: TEXT"),
        ("Of {} ({text}), said.", "Of MASK (TEXT), said."),
    ],
)
def test_prompted_text_is_tokenized_like_the_whole_sentence(tokenizer: Tokenizer, template: str, whole: str) -> None:
    plain = Tokenizer.from_str(tokenizer.to_str())
    mask = "<mask>" if plain.token_to_id("<mask>") is not None else "[MASK]"
    prompt = set_prompt(tokenizer, template, names())
    for text in TEXTS[1:3]:
        expected = plain.encode(whole.replace("MASK", mask).replace("TEXT", text)).ids
        assert read(tokenizer, [text]) == [expected]
        assert expected[prompt.place] == plain.token_to_id(mask)


@pytest.mark.parametrize("template", ["This is of {}.", "{}: {text}", "Of {} ({text}), said."])
def test_truncation_shortens_the_text_and_never_the_prompt(tokenizer: Tokenizer, template: str) -> None:
    tokenizer.enable_truncation(24)
    mask = tokenizer.token_to_id("[MASK]") or tokenizer.token_to_id("<mask>")
    prompt = set_prompt(tokenizer, template, names())
    empty, *_, long = read(tokenizer, TEXTS)
    assert len(empty) < len(long) == 24
    for ids in read(Tokenizer.from_str(tokenizer.to_str()), [*TEXTS, "a [MASK] <mask> b"]):
        assert ids[prompt.place] == mask
        assert ids[:2] == empty[:2] or template.startswith("This")
        assert ids[-3:] == empty[-3:] or template.startswith("{}")


def test_class_words_are_tokenized_like_words_that_follow_others(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny, 64)
    prompt = set_prompt(tokenizer, "{}", Examples(["goal", "coach", "xy"], np.array([1, 1, 0]), np.arange(3), ("a", "b")))
    assert [[tokenizer.id_to_token(i) for word in words for i in word] for words in prompt.words] == [
        ["x", "##y"],
        ["goal", "coach"],
    ]
    assert [len(words) for words in prompt.words] == [1, 2]
    assert prompt.remarks == ["1 words have several tokens, such as 'xy': their mean is used"]
    bytewise = set_prompt(bytes_tokenizer(), "{}", names("of", "S"))
    assert (bytewise.words, bytewise.remarks) == (
        [[[bytes_tokenizer().token_to_id("Ġof")]], [[bytes_tokenizer().token_to_id("ĠS")]]],
        [],
    )


def prompted(tokenizer: Any, template: str = "{}", *words: str) -> Prompt:
    return set_prompt(tokenizer, template, names(*words))


def test_invalid_prompts_are_refused(tiny: Path) -> None:
    with pytest.raises(LoralabError, match=r"does not know '雪': give class '雪' other words with data.descriptions"):
        prompted(load_tokenizer(tiny, 64), "{}", "goal", "雪")
    with pytest.raises(LoralabError, match="does not know ''"):
        prompted(load_tokenizer(tiny, 64), "{}", "goal", "")
    with pytest.raises(LoralabError, match="leaves no room for a text: it takes 8 of 8 tokens"):
        prompted(load_tokenizer(tiny, 8), "this week of a {} .")
    prompted(load_tokenizer(tiny, 9), "this week of a {} .")
    with pytest.raises(LoralabError, match="2 masks"):
        prompted(load_tokenizer(tiny, 64), "[MASK] or {}")
    bare = Tokenizer(models.WordLevel({"goal": 0}, unk_token="goal"))
    with pytest.raises(LoralabError, match=r"no mask token \(\[MASK\] or <mask>\)"):
        prompted(bare)


def test_words_of_several_tokens_are_counted(tiny: Path) -> None:
    prompt = set_prompt(load_tokenizer(tiny, 64), "It is {}.", names("goal", "xy", "coach", "yx", "goal"))
    assert prompt.remarks == ["2 words have several tokens, such as 'xy': their mean is used"]
    assert set_prompt(load_tokenizer(tiny, 64), "It is {}.", names("goal", "coach")).remarks == []


def test_descriptions_are_texts_with_their_class() -> None:
    rows = description_texts(["a", "b"], {"b": ("x", "y"), "a": ["z"]}, "about {} now")
    assert rows.texts == ["about z now", "about x now", "about y now"]
    assert (rows.require_labels().tolist(), rows.rows.tolist(), rows.classes) == ([0, 1, 1], [0, 1, 2], ("a", "b"))
    assert description_texts(["a", "b"], None, "{}").texts == ["a", "b"]
    with pytest.raises(LoralabError, match=r"'c' is not a class.*: a, b"):
        description_texts(["a", "b"], {"a": ("x",), "c": ("y",)}, "{}")
    for empty in ({"a": ("x",)}, {"a": ("x",), "b": ()}):
        with pytest.raises(LoralabError, match="class 'b' has none"):
            description_texts(["a", "b"], empty, "{}")
