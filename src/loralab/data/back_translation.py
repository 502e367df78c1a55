"""Back-translation with a pair of Marian checkpoints (Junczys-Dowmunt et al. 2018), through Transformers.

Checkpoints from the hub need the package sentencepiece. The tests use checkpoints of that layout with random weights; the
published ones are untested.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from loralab.errors import LoralabError, import_optional
from loralab.model.device import choose_device
from loralab.model.hf.pretrained import quiet

DEFAULT_PAIR = ("Helsinki-NLP/opus-mt-en-fr", "Helsinki-NLP/opus-mt-fr-en")
TEMPERATURE = 0.9
"""UDA (Xie et al. 2020) samples with this temperature and finds diversity more useful than the most probable translation."""
TOKENS_PER_BATCH = 2048
"""Padded tokens per batch; larger batches are not faster on two cores."""
MAX_TOKENS = 512
GROWTH = 2
"""A translation has at most this many times the tokens of its source, plus 16. Sampling alone may never end."""


@dataclass(frozen=True)
class Translator:
    """A tokenizer and an encoder-decoder in fp32, for one direction."""

    name: str
    tokenizer: Any
    model: Any

    def translate(self, texts: Sequence[str], seed: int) -> list[str]:
        """Translate texts, in their order. The same texts and seed give the same translations on one machine.

        Texts are truncated to MAX_TOKENS tokens and translated in batches of similar length, from one random stream. An empty
        text stays empty.
        """
        max_length = self._max_length()
        ids = [self.tokenizer(text, truncation=True, max_length=max_length).input_ids if text.strip() else [] for text in texts]
        order = sorted((i for i, tokens in enumerate(ids) if tokens), key=lambda i: (-len(ids[i]), i))
        translations = [""] * len(texts)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            while order:
                count = max(1, TOKENS_PER_BATCH // len(ids[order[0]]))
                batch, order = order[:count], order[count:]
                for i, text in zip(batch, self._generate([ids[i] for i in batch]), strict=True):
                    translations[i] = text
        return translations

    def _generate(self, ids: list[list[int]]) -> list[str]:
        """Translate one batch, its longest text first."""
        padded = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.model.device)
        tokens = self.model.generate(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            max_new_tokens=min(GROWTH * len(ids[0]) + 16, self._max_length() - 1),
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            num_beams=1,
        )
        decoded: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in decoded]

    def _max_length(self) -> int:
        return min(MAX_TOKENS, int(self.model.config.max_position_embeddings))


def load_back_translation(forward: str, backward: str, device: str = "auto") -> Callable[[Sequence[str], str], list[str]]:
    """Return a function (texts, key) → the texts translated by `forward` and back by `backward`. The key seeds the random stream.

    device: as `train.device`. Raises LoralabError if a folder or hub id cannot be loaded as an encoder-decoder with its tokenizer.
    """
    translators = (_load(forward, device), _load(backward, device))

    def rewrite(texts: Sequence[str], key: str) -> list[str]:
        stream = random.Random(key)  # noqa: S311 - not for cryptography
        translations = list(texts)
        with quiet():
            for translator in translators:
                translations = translator.translate(translations, stream.getrandbits(63))
        return translations

    return rewrite


def _load(name: str, device: str = "auto") -> Translator:
    """Load a folder, or a hub id from the local cache or else from the hub."""
    transformers = import_optional("transformers", "augment")
    is_folder = Path(name).is_dir()

    def load(local: bool) -> Translator:
        options = {"local_files_only": local, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
        # Many checkpoints on the hub are pickles. Transformers reads them with `weights_only`, which executes no code.
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32, **options)
        return Translator(name, tokenizer, model.to(choose_device(device)).eval())

    with quiet():
        try:
            try:
                return load(local=True)
            except OSError:
                if is_folder:
                    raise
                return load(local=False)
        except Exception as error:  # Transformers, tokenizers, sentencepiece and the hub's client each raise their own
            raise LoralabError(
                f"data.back_translation: cannot load {name!r} as a translation model: {error}\n"
                f"  Give two Marian checkpoints, as folders or hub ids; those of the hub need pip install 'loralab[augment]'"
            ) from error
