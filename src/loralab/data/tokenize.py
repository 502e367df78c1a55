"""Texts → tokens, with the Rust tokenizer that comes with every checkpoint."""

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
KEPT_BYTES = 256 << 20
"""Most bytes of tokens that `tokenize_cached` keeps: about a million news briefs."""
_kept: dict[str, Encoded] = {}


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Load tokenizer.json, or a BERT vocab.txt, truncating at `max_length` tokens, special tokens included.

    Raises LoralabError when the folder has neither or the file cannot be read.
    """
    from tokenizers import Tokenizer
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if path.is_file():
            tokenizer = Tokenizer.from_file(str(path))
        elif vocabulary.is_file():
            tokenizer = Tokenizer.from_str(BertWordPieceTokenizer(str(vocabulary), lowercase=_lower_case(folder)).to_str())
        else:
            raise LoralabError(f"{folder} has no tokenizer.json (and no vocab.txt): copy the checkpoint's tokenizer there")
    except LoralabError:
        raise
    except Exception as error:  # the Rust library raises bare Exception
        raise LoralabError(f"cannot read the tokenizer in {folder}: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def _lower_case(folder: Path) -> bool:
    """Whether a BERT vocabulary is for lower-case texts: what tokenizer_config.json says, else yes."""
    note = folder / "tokenizer_config.json"
    return bool(json.loads(note.read_text(encoding="utf-8")).get("do_lower_case", True)) if note.is_file() else True


def encode(examples: Examples, *, tokenizer: Tokenizer, clean: Sequence[str], pad_id: int) -> Encoded:
    """Clean and tokenize texts, in chunks so that memory stays at a few times the tokens themselves."""
    texts = examples.texts
    pieces: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), CHUNK):
        batch = [replace_surrogates(clean_text(text, clean)) for text in texts[start : start + CHUNK]]
        for encoding in tokenizer.encode_batch_fast(batch):
            pieces.append(np.asarray(encoding.ids, dtype=np.int32))
            lengths.append(len(encoding.ids))
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    tokens = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
    return Encoded(tokens, starts, examples.labels, pad_id)


def tokenize_cached(examples: Examples, *, tokenizer: Tokenizer, clean: Sequence[str], pad_id: int) -> Encoded:
    """Do as `encode`; the same texts in a later run of this process, such as another seed's, are not tokenized again.

    Found by content, not by file: what was changed on the disk is read and tokenized anew. The arrays cannot be written to.
    """
    settings = json.dumps([tokenizer.to_str(), [*clean], pad_id])  # with the tokenizer comes its limit of length
    key = f"{examples.fingerprint()}/{hashlib.sha256(settings.encode()).hexdigest()}"
    found = _kept.pop(key, None)
    if found is None:
        found = encode(examples, tokenizer=tokenizer, clean=clean, pad_id=pad_id)
    for array in (found.tokens, found.starts):
        array.flags.writeable = False
    _kept[key] = replace(found, labels=None)
    while sum(kept.tokens.nbytes + kept.starts.nbytes for kept in _kept.values()) > KEPT_BYTES:
        del _kept[next(iter(_kept))]  # used longest ago
    return replace(found, labels=examples.labels)
