"""A prompt around every text, with a mask where its class would be named: `shares fell. This is news about [MASK].`

Schick and Schütze 2021 (PET), Gao et al. 2021 (LM-BFF): a masked language model's own head then tells how well each class's words
fit. The prompt becomes what the tokenizer sets before and after each text, where others set [CLS] and [SEP]: so it is the text that
is truncated, never the prompt, and whoever has the tokenizer, which a bundle keeps, reads texts as they were trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralab.data.types import Examples
from loralab.errors import LoralabError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TEXT, CLASS = "{text}", "{}"
MASKS, UNKNOWN = ("[MASK]", "<mask>"), ("[UNK]", "<unk>")


@dataclass(frozen=True)
class Prompt:
    """place: the mask's, from 0, or before 0 from the last token of the text; words: [class][word] → tokens; and what is odd."""

    place: int
    words: list[list[list[int]]]
    remarks: list[str]


def set_prompt(tokenizer: Tokenizer, template: str, names: Examples) -> Prompt:
    """Put a prompt into the tokenizer, and find the tokens of what the classes are called.

    template: `{}` is the mask's place; `{text}` the text's, which otherwise comes first. names: words or phrases, labelled. The
    parts are tokenized apart, and a word as one that follows another (PET does both). Raises LoralabError for a tokenizer without a
    mask, a prompt that leaves a text no room, and a word that is unknown.
    """
    from tokenizers import normalizers, processors

    mask = next((token for token in MASKS if tokenizer.token_to_id(token) is not None), None)
    if mask is None:
        raise LoralabError(f"model.head=prompt: this encoder's tokenizer has neither {' nor '.join(MASKS)}: use another head")
    words, remarks = _words(tokenizer, names)
    before, _, after = (template if TEXT in template else f"{TEXT} {template}").replace(CLASS, mask).partition(TEXT)
    begin, end = _around(tokenizer)
    first, last = [*begin, *_read(tokenizer, before.rstrip()).ids], [*_read(tokenizer, after.rstrip()).ids, *end]
    assert tokenizer.truncation is not None
    longest = tokenizer.truncation["max_length"]
    if len(first + last) >= longest:
        raise LoralabError(f"data.template leaves no room for a text: it has {len(first + last)} tokens of {longest}")
    place = [i for i, token in enumerate(first + last) if token == tokenizer.token_to_id(mask)]
    if len(place) != 1:
        raise LoralabError(f"data.template={template!r} is read with {len(place)} masks: write {{}} once, and no {mask}")
    parts = [
        {"id": name, "ids": ids, "tokens": [tokenizer.id_to_token(i) for i in ids]}
        for name, ids in (("before", first), ("after", last))
    ]
    tokenizer.post_processor = processors.TemplateProcessing(single=["before", "$A", "after"], special_tokens=parts)
    if before != before.rstrip():  # what comes after a space is another token, to a tokenizer of bytes
        own = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(" "), *own])
    return Prompt(place[0] if place[0] < len(first) else place[0] - len(first + last), words, remarks)


def _words(tokenizer: Tokenizer, names: Examples) -> tuple[list[list[list[int]]], list[str]]:
    """Return the tokens of every class's words, and a remark where some are several."""
    words: list[list[list[int]]] = [[] for _ in names.classes]
    for word, label in zip(names.texts, names.require_labels(), strict=True):
        found = _read(tokenizer, f" {word}")
        if not found.ids or set(UNKNOWN) & set(found.tokens):
            raise LoralabError(
                f"model.head=prompt: this encoder's tokenizer does not know {word!r}: give class {names.classes[label]!r} "
                "other words with data.descriptions"
            )
        words[label].append(found.ids)
    several = [
        word for word, label in zip(names.texts, names.require_labels(), strict=True) if len(_read(tokenizer, f" {word}")) > 1
    ]
    if not several:
        return words, []
    return words, [f"{len(several)} words of several tokens, such as {several[0]!r}: the mean of their tokens stands for each"]


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    read = tokenizer.encode("a")
    start = read.special_tokens_mask.index(0)
    stop = len(read) - read.special_tokens_mask[::-1].index(0)
    return read.ids[:start], read.ids[stop:]


def _read(tokenizer: Tokenizer, text: str) -> Encoding:
    return tokenizer.encode(text, add_special_tokens=False)
