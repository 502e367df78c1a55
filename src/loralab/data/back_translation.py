"""Back-translation with a pair of Marian checkpoints (Junczys-Dowmunt et al. 2018), through Transformers.

The hub's pairs, such as Helsinki-NLP/opus-mt-en-fr and opus-mt-fr-en, need the package sentencepiece. No network was at hand when
this was written: it was tried on checkpoints of that layout with random weights, not on those.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loralab.errors import LoralabError, need
from loralab.model.device import choose_device
from loralab.model.hf.pretrained import quiet

TEMPERATURE = 0.9
"""UDA (Xie et al. 2020) draws words with this temperature, and found variety to help more than the likeliest translation."""
TOKENS_PER_BATCH = 2048
"""Padded tokens read at once: on two cores larger batches are not faster."""
LONGEST = 512
GROWTH = 2
"""A translation may have this many times the tokens of its source, and 16 more; a random walk would never end by itself."""


@dataclass(frozen=True)
class Translator:
    """One direction: a tokenizer and an encoder-decoder, in fp32."""

    name: str
    tokenizer: Any
    model: Any

    def translate(self, texts: Sequence[str], seed: int) -> list[str]:
        """Translate texts, in their order; the same texts and seed give the same translations on one machine.

        Texts are read to LONGEST tokens, in batches of like length that share one random stream. An empty text stays empty.
        """
        ids = [
            self.tokenizer(text, truncation=True, max_length=self._longest()).input_ids if text.strip() else [] for text in texts
        ]
        order = sorted((i for i, tokens in enumerate(ids) if tokens), key=lambda i: (-len(ids[i]), i))
        found = [""] * len(texts)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            while order:
                count = max(1, TOKENS_PER_BATCH // len(ids[order[0]]))
                batch, order = order[:count], order[count:]
                for i, text in zip(batch, self._generate([ids[i] for i in batch]), strict=True):
                    found[i] = text
        return found

    def _generate(self, ids: list[list[int]]) -> list[str]:
        padded = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.model.device)
        limit = min(GROWTH * len(ids[0]) + 16, self._longest() - 1)  # the longest is first
        tokens = self.model.generate(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            max_new_tokens=limit,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            num_beams=1,
        )
        decoded: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in decoded]

    def _longest(self) -> int:
        return min(LONGEST, int(self.model.config.max_position_embeddings))


def load_back_translation(there: str, back: str) -> Callable[[Sequence[str], str], list[str]]:
    """Return a function (texts, key) → the texts translated by `there` and the result by `back`; `key` names the random stream.

    Both are folders or hub ids. Raises LoralabError for one that is not there or is no translator.
    """
    ways = (_load(there), _load(back))

    def rewrite(texts: Sequence[str], key: str) -> list[str]:
        source = random.Random(key)  # noqa: S311 - no secret hangs on it
        found = list(texts)
        with quiet():
            for way in ways:
                found = way.translate(found, source.getrandbits(63))
        return found

    return rewrite


def _load(name: str) -> Translator:
    """Load a folder, or a hub id: from the local cache where it is there, else from the hub."""
    transformers = need("transformers", "augment")
    folder = Path(name).is_dir()

    def load(local: bool) -> Translator:
        options = {"local_files_only": local, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
        # Many of the hub's pairs are pickles: Transformers reads them with torch's `weights_only`, which runs nothing.
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32, **options)
        return Translator(name, tokenizer, model.to(choose_device()).eval())

    with quiet():
        try:
            try:
                return load(local=True)
            except OSError:
                if folder:
                    raise
                return load(local=False)
        except Exception as error:  # Transformers, tokenizers, sentencepiece and the hub's client each raise their own
            raise LoralabError(
                f"data.back_translation: {name!r} cannot be loaded as a translator: {error}\n"
                f"  Give two Marian checkpoints, folders or hub ids; the hub's need pip install 'loralab[augment]' (sentencepiece)"
            ) from error
