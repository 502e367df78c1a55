"""Texts → tokens, with the checkpoint's Rust tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loralab.data.clean import clean_text, replace_surrogates
from loralab.data.types import Encoded, Examples
from loralab.errors import LoralabError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNK = 4096
MAX_CACHED_BYTES = 256 << 20
"""Limit of `tokenize_cached`: the tokens of about a million news briefs."""
_cache: dict[str, Encoded] = {}


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Load tokenizer.json, or a BERT vocab.txt. Texts are truncated to `max_length` tokens, special tokens included.

    Raises LoralabError if the folder has neither file or it cannot be read.
    """
    from tokenizers import Tokenizer
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(str(path))
        elif vocabulary.is_file():
            tokenizer = Tokenizer.from_str(BertWordPieceTokenizer(str(vocabulary), lowercase=_is_uncased(folder)).to_str())
        else:
            raise LoralabError(f"{folder} has no tokenizer.json (and no vocab.txt): copy the checkpoint's tokenizer there")
    except LoralabError:
        raise
    except Exception as error:  # the Rust library raises bare Exception
        raise LoralabError(f"cannot read the tokenizer in {folder}: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _is_uncased(folder: Path) -> bool:
    """Return `do_lower_case` of tokenizer_config.json, True by default."""
    path = folder / "tokenizer_config.json"
    return bool(json.loads(path.read_text(encoding="utf-8")).get("do_lower_case", True)) if path.is_file() else True


def encode(examples: Examples, *, tokenizer: Tokenizer, clean: Sequence[str], pad_id: int) -> Encoded:
    """Clean and tokenize texts in chunks, which limits memory to a few times that of the tokens."""
    texts = examples.texts
    pieces: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), CHUNK):
        chunk = [replace_surrogates(clean_text(text, clean)) for text in texts[start : start + CHUNK]]
        for encoding in tokenizer.encode_batch_fast(chunk):
            pieces.append(np.asarray(encoding.ids, dtype=np.int32))
            lengths.append(len(encoding.ids))
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    return Encoded(tokens, starts, examples.labels, pad_id)


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
