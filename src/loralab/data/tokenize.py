"""Texts → tokens, with the checkpoint's Rust tokenizer."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loralab.data.clean import clean_text, replace_surrogates
from loralab.data.types import Encoded, Examples, TextFacts
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
            settings = _tokenizer_settings(folder)
            pieces = BertWordPieceTokenizer(
                str(vocabulary),
                lowercase=bool(settings.get("do_lower_case", True)),
                strip_accents=settings.get("strip_accents"),
                handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
            )
            tokenizer = Tokenizer.from_str(pieces.to_str())
        else:
            raise LoralabError(_no_tokenizer(folder))
    except LoralabError:
        raise
    except Exception as error:  # the Rust library raises bare Exception
        raise LoralabError(f"cannot read the tokenizer in {folder}: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def tokenizer_remarks(folder: Path) -> list[str]:
    """Report a vocab.txt with capitals whose texts are read in lower case: its tokenizer_config.json says nothing else."""
    vocabulary = folder / "vocab.txt"
    if (folder / "tokenizer.json").is_file() or not vocabulary.is_file() or "do_lower_case" in _tokenizer_settings(folder):
        return []
    words = vocabulary.read_text(encoding="utf-8", errors="replace").split("\n")
    capitals = [word for word in words if word[:1].isupper() and not word.startswith("[")]
    if not capitals:
        return []
    example = f"{capitals[0]!r} is read as {capitals[0].lower()!r}"
    return [
        f"{vocabulary} has words with capitals, but texts are read in lower case ({example}): "
        f'write {{"do_lower_case": false}} into {folder / "tokenizer_config.json"} if the encoder is cased'
    ]


def _tokenizer_settings(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json, empty without one."""
    path = folder / "tokenizer_config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _no_tokenizer(folder: Path) -> str:
    """Return the message for a folder without a tokenizer that is read: with the command that converts an old one."""
    old = [name for name in ("vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model") if (folder / name).is_file()]
    if not old:
        return f"{folder} has no tokenizer.json (and no vocab.txt): copy the checkpoint's tokenizer there"
    path = str(folder)
    code = f"from transformers import AutoTokenizer; AutoTokenizer.from_pretrained({path!r}).save_pretrained({path!r})"
    return f"{folder} has a tokenizer in an old form ({', '.join(old)}): convert it with\n  python -c {shlex.quote(code)}"


def encode(examples: Examples, *, tokenizer: Tokenizer, clean: Sequence[str], pad_id: int) -> Encoded:
    """Clean and tokenize texts in chunks, which limits memory to a few times that of the tokens."""
    texts = examples.texts
    special, cut, lost, emptied = tokenizer.num_special_tokens_to_add(False), 0, 0, list[int]()
    limit = (tokenizer.truncation or {}).get("max_length")
    pieces: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), CHUNK):
        chunk = [replace_surrogates(clean_text(text, clean)) for text in texts[start : start + CHUNK]]
        if clean:
            emptied += [start + i for i, text in enumerate(chunk) if not text.strip() and texts[start + i].strip()]
        for encoding in tokenizer.encode_batch_fast(chunk):
            if len(encoding.ids) == limit and (rest := encoding.overflowing):
                cut, lost = cut + 1, lost + sum(len(part.ids) - special for part in rest)
            pieces.append(np.asarray(encoding.ids, dtype=np.int32))
            lengths.append(len(encoding.ids))
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "<unk>")
    facts = TextFacts(cut, lost, int((tokens == unknown).sum()) if unknown is not None else 0, tuple(emptied))
    return Encoded(tokens, starts, examples.labels, pad_id, facts=facts)


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
