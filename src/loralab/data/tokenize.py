"""Texts → tokens, with the checkpoint's Rust tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loralab.data.clean import clean_text, replace_surrogates
from loralab.data.types import Encoded, Examples, TextFacts
from loralab.errors import LoralabError, python_command

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

CHUNK = 4096
MAX_CACHED_BYTES = 256 << 20
"""Limit of `tokenize_cached`: the tokens of about a million news briefs."""
_cache: dict[str, Encoded] = {}
# Tokenizer classes without their ending, and model types, whose vocab.txt is BERT's.
_WORDPIECE = frozenset(
    ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "Lxmert", "bert", "distilbert", "electra", "mobilebert", "convbert")
)
_ONLY_PYTHON = ("BertJapaneseTokenizer", "BertweetTokenizer", "PhobertTokenizer", "CanineTokenizer", "FlaubertTokenizer")
_OLD_FILES = (
    *("vocab.json", "merges.txt", "bpe.codes", "vocab.txt", "added_tokens.json"),
    *("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model", "source.spm"),
)


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Load tokenizer.json, or BERT's vocab.txt. Texts are truncated to `max_length` tokens, special tokens included.

    Both follow tokenizer_config.json as Transformers does. Raises LoralabError if the folder has neither file or it cannot be
    read, with the command that converts another form.
    """
    from tokenizers import Tokenizer

    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(str(path))
            _set_normalizer(tokenizer, folder)
        elif vocabulary.is_file() and _is_wordpiece(folder):
            tokenizer = _read_vocabulary(folder)
        else:
            raise LoralabError(_no_tokenizer(folder))
    except LoralabError:
        raise
    except Exception as error:  # the Rust library raises bare Exception
        raise LoralabError(f"cannot read the tokenizer in {folder}: {error}") from error
    unknown = getattr(tokenizer.model, "unk_token", None)
    if type(tokenizer.model).__name__ in ("WordPiece", "WordLevel") and tokenizer.model.token_to_id(unknown or "") is None:
        raise LoralabError(f"the tokenizer in {folder} has no token {unknown!r} for unknown words: is its vocabulary complete?")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _read_vocabulary(folder: Path) -> Tokenizer:
    """Read vocab.txt as Transformers' BertTokenizer does."""
    from tokenizers import Tokenizer
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    settings = _tokenizer_settings(folder)
    pieces = BertWordPieceTokenizer(
        str(folder / "vocab.txt"),
        lowercase=bool(settings.get("do_lower_case", True)),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        **_special_names(settings),
    )
    return Tokenizer.from_str(pieces.to_str())


def _set_normalizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Set what tokenizer_config.json says of BERT's normalizer: it overrules tokenizer.json in Transformers."""
    from tokenizers.normalizers import BertNormalizer

    settings = _tokenizer_settings(folder)
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, BertNormalizer) or _tokenizer_class(folder) not in _WORDPIECE:
        return
    options = {"do_lower_case": "lowercase", "strip_accents": "strip_accents", "tokenize_chinese_chars": "handle_chinese_chars"}
    for name, own in options.items():
        if name in settings and getattr(normalizer, own) != settings[name]:
            setattr(normalizer, own, settings[name])
    tokenizer.normalizer = normalizer


def _is_wordpiece(folder: Path) -> bool:
    """Whether vocab.txt is BERT's alone: other tokenizers have a file of that name too, and tokens can be added to it."""
    settings = _tokenizer_settings(folder)
    names = settings.get("added_tokens_decoder", {}).values()
    added = {_content(token) for token in names} | set(read_settings(folder / "added_tokens.json"))
    if added and not added <= set(_read_words(folder)):
        return False
    named = _tokenizer_class(folder)
    return (not named or named in _WORDPIECE) and not any((folder / name).is_file() for name in ("bpe.codes", "merges.txt"))


def tokenizer_remarks(folder: Path) -> list[str]:
    """Report a vocab.txt with capitals whose texts are read in lower case: its tokenizer_config.json says nothing else."""
    vocabulary = folder / "vocab.txt"
    if (folder / "tokenizer.json").is_file() or not vocabulary.is_file():
        return []
    settings = _tokenizer_settings(folder)
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_special_names(settings).values()}
    capitals = [word for word in _read_words(folder) if word != word.lower() and word not in special and word[:1] not in "[<"]
    if not settings.get("do_lower_case", True) or not capitals:
        return []
    example = f"{capitals[0]!r} is read as {capitals[0].lower()!r}"
    return [
        f"{vocabulary} has {len(capitals):,} words with capitals, but texts are read in lower case ({example}): "
        f'if the encoder is cased, write "do_lower_case": false into {folder / "tokenizer_config.json"}'
    ]


def _read_words(folder: Path) -> list[str]:
    return (folder / "vocab.txt").read_text(encoding="utf-8", errors="replace").split("\n")


def _tokenizer_settings(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json, with the special tokens of special_tokens_map.json."""
    return {**read_settings(folder / "special_tokens_map.json"), **read_settings(folder / "tokenizer_config.json")}


def read_settings(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, empty if there is no file. Raises LoralabError if it has none."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise LoralabError(f"cannot read the tokenizer's settings in {path}: {error}") from error


def _tokenizer_class(folder: Path) -> str:
    """Return the tokenizer class without Transformers' endings, such as `Bert`, or else the model type."""
    named = str(_tokenizer_settings(folder).get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")
    return named or str(read_settings(folder / "config.json").get("model_type") or "")


def _special_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the special tokens that the settings name, by kind."""
    kinds = ("unk_token", "sep_token", "cls_token", "pad_token", "mask_token")
    return {kind: _content(settings[kind]) for kind in kinds if settings.get(kind)}


def _content(token: object) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _no_tokenizer(folder: Path) -> str:
    """Return the message for a folder without a tokenizer that is read: with the command that converts one of another form."""
    old = [name for name in _OLD_FILES if (folder / name).is_file()]
    if not old:
        return f"{folder} has no tokenizer.json (and no vocab.txt): copy the checkpoint's tokenizer there"
    name = f"{_tokenizer_class(folder)}Tokenizer"
    if name in _ONLY_PYTHON:
        return f"{folder}: {name} has no tokenizer.json in Transformers, and loralab reads no other form: use another encoder"
    path = str(folder)
    code = f"from transformers import AutoTokenizer; AutoTokenizer.from_pretrained({path!r}).save_pretrained({path!r})"
    needs = " (after pip install sentencepiece)" if any(file.endswith(".model") for file in old) else ""
    return f"{folder} has a tokenizer in an old form ({', '.join(old)}): convert it with{needs}\n  {python_command(code)}"


def encode(examples: Examples, *, tokenizer: Tokenizer, clean: Sequence[str], pad_id: int) -> Encoded:
    """Clean and tokenize texts in chunks, which limits memory to a few times that of the tokens."""
    texts = examples.texts
    special, cut, lost, longest, emptied = tokenizer.num_special_tokens_to_add(False), 0, 0, 0, list[int]()
    limit = (tokenizer.truncation or {}).get("max_length")
    pieces: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), CHUNK):
        chunk = [replace_surrogates(clean_text(text, clean)) for text in texts[start : start + CHUNK]]
        if clean:
            emptied += [start + i for i, text in enumerate(chunk) if not text.strip() and texts[start + i].strip()]
        for encoding in _encode_batch(tokenizer, chunk):
            if len(encoding.ids) == limit and (rest := encoding.overflowing):
                beyond = sum(len(part.ids) - special for part in rest)
                cut, lost, longest = cut + 1, lost + beyond, max(longest, limit + beyond)
            pieces.append(np.asarray(encoding.ids, dtype=np.int32))
            lengths.append(len(encoding.ids))
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    unknown = unknown_token(tokenizer)
    count = int((tokens == unknown).sum()) if unknown is not None else 0
    facts = TextFacts(cut, lost, count, tuple(emptied), special * len(texts), max([longest, *lengths]))
    return Encoded(tokens, starts, examples.labels, pad_id, facts=facts)


def _encode_batch(tokenizer: Tokenizer, texts: Sequence[str]) -> Sequence[Encoding]:
    try:
        return tokenizer.encode_batch_fast(texts)
    except BaseException as error:
        # The Rust library raises bare Exception, such as for a word that its vocabulary cannot express, and panics, which are no
        # Exception, where a regular expression of tokenizer.json takes too many steps.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise LoralabError(f"the tokenizer cannot encode a text ({error}): is its tokenizer.json complete?") from error


def unknown_token(tokenizer: Tokenizer) -> int | None:
    """Return the id of the token for words that the vocabulary does not have; None if it has all bytes."""
    own = getattr(tokenizer.model, "unk_token", None)  # a Unigram model does not tell
    ids = (tokenizer.token_to_id(token) for token in ((own,) if own else ("<unk>", "[UNK]")))
    return next((token for token in ids if token is not None), None)


def tokenize_cached(examples: Examples, *, tokenizer: Tokenizer, clean: Sequence[str], pad_id: int) -> Encoded:
    """Like `encode`, but reuse the tokens of equal texts from an earlier run in this process, such as one with another seed.

    The key is the content, so a changed file is tokenized again. The arrays are read-only.
    """
    settings = json.dumps([tokenizer.to_str(), [*clean], pad_id])  # includes the tokenizer's truncation length
    key = f"{examples.fingerprint()}/{hashlib.sha256(settings.encode()).hexdigest()}"
    encoded = _cache.pop(key, None)
    if encoded is None:
        encoded = encode(examples, tokenizer=tokenizer, clean=clean, pad_id=pad_id)
    for array in (encoded.tokens, encoded.starts):
        array.flags.writeable = False
    _cache[key] = replace(encoded, labels=None)
    while sum(entry.tokens.nbytes + entry.starts.nbytes for entry in _cache.values()) > MAX_CACHED_BYTES:
        del _cache[next(iter(_cache))]  # the least recently used entry
    return replace(encoded, labels=examples.labels)
