"""A prompt around a text: against the whole sentence read at once, by a tokenizer of words and by one of bytes, as RoBERTa's is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import CLASSES
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from loralab.data.prompt import Prompt, set_prompt
from loralab.data.tokenize import load_tokenizer
from loralab.data.types import Examples
from loralab.errors import LoralabError

TEXTS = ["", "Shares", "Shares of the bank", "goal! " * 40]


def names(*words: str) -> Examples:
    return Examples(words or CLASSES, np.arange(len(words) or 4), np.arange(len(words) or 4), words or CLASSES)


def bytes_tokenizer() -> Tokenizer:
    """RoBERTa's way: bytes, a space belonging to the word after it, and a mask that takes the space before it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("o", "f"), ("Ġ", "of"), ("Ġ", "S"), ("Ġ", "t")]
    pieces = ["<s>", "<pad>", "</s>", "<mask>", *letters, *("".join(pair) for pair in merges)]
    found = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    found.add_special_tokens(["<s>", "<pad>", "</s>", AddedToken("<mask>", lstrip=True)])
    found.enable_truncation(64)
    return found


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
def test_a_text_in_a_prompt_is_read_as_the_whole_sentence_is(tokenizer: Tokenizer, template: str, whole: str) -> None:
    plain = Tokenizer.from_str(tokenizer.to_str())
    mask = "<mask>" if plain.token_to_id("<mask>") is not None else "[MASK]"
    found = set_prompt(tokenizer, template, names())
    for text in TEXTS[1:3]:
        expected = plain.encode(whole.replace("MASK", mask).replace("TEXT", text)).ids
        assert read(tokenizer, [text]) == [expected]
        assert expected[found.place] == plain.token_to_id(mask)


@pytest.mark.parametrize("template", ["This is of {}.", "{}: {text}", "Of {} ({text}), said."])
def test_the_text_is_cut_and_never_the_prompt(tokenizer: Tokenizer, template: str) -> None:
    tokenizer.enable_truncation(24)
    mask = tokenizer.token_to_id("[MASK]") or tokenizer.token_to_id("<mask>")
    found = set_prompt(tokenizer, template, names())
    prompt, *_, long = read(tokenizer, TEXTS)
    assert len(prompt) < len(long) == 24
    for ids in read(Tokenizer.from_str(tokenizer.to_str()), [*TEXTS, "a [MASK] <mask> b"]):
        assert ids[found.place] == mask
        assert ids[:2] == prompt[:2] or template.startswith("This")
        assert ids[-3:] == prompt[-3:] or template.startswith("{}")


def test_words_are_read_as_they_follow_others(tiny: Path) -> None:
    tokenizer = load_tokenizer(tiny, 64)
    found = set_prompt(tokenizer, "{}", Examples(["goal", "coach", "xy"], np.array([1, 1, 0]), np.arange(3), ("a", "b")))
    assert [[tokenizer.id_to_token(i) for word in words for i in word] for words in found.words] == [
        ["x", "##y"],
        ["goal", "coach"],
    ]
    assert [len(words) for words in found.words] == [1, 2]
    assert found.remarks == ["1 words have several tokens, such as 'xy': their mean is used"]
    bytewise = set_prompt(bytes_tokenizer(), "{}", names("of", "S"))
    assert (bytewise.words, bytewise.remarks) == (
        [[[bytes_tokenizer().token_to_id("Ġof")]], [[bytes_tokenizer().token_to_id("ĠS")]]],
        [],
    )


def prompted(tokenizer: Any, template: str = "{}", *words: str) -> Prompt:
    return set_prompt(tokenizer, template, names(*words))


def test_what_cannot_be_a_prompt_is_refused(tiny: Path) -> None:
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
