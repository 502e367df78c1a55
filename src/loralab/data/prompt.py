"""Class descriptions as labelled texts, and prompts: `shares fell. This is news about [MASK].`

With a prompt, the masked-language head scores how well each class's words fit the mask (PET, Schick and Schütze 2021; LM-BFF, Gao
et al. 2021). The prompt becomes part of the tokenizer's post-processor, in place of [CLS] and [SEP]. So truncation shortens the
text, never the prompt, and a saved tokenizer reproduces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loralab.data.types import Examples
from loralab.errors import LoralabError, suggest

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TEXT, CLASS = "{text}", "{}"
MASKS, UNKNOWN = ("[MASK]", "<mask>"), ("[UNK]", "<unk>")


@dataclass(frozen=True)
class Prompt:
    """The mask's position, and the tokens of the class words.

    place: counted from the first token, or negative from the last one. words: [class][word] → token ids.
    """

    place: int
    words: list[list[list[int]]]
    remarks: list[str]


def description_texts(classes: Sequence[str], descriptions: Mapping[str, Sequence[str]] | None, template: str) -> Examples:
    """Return each class description, or without descriptions each class name, in the template and labelled with its class.

    Raises LoralabError for a class without a description and for a description of an unknown class.
    """
    if descriptions is None:
        descriptions = {name: (name,) for name in classes}
    if unknown := [name for name in descriptions if name not in classes]:
        raise LoralabError(f"data.descriptions: {unknown[0]!r} is not a class{suggest(unknown[0], classes)}: {', '.join(classes)}")
    if missing := [name for name in classes if not descriptions.get(name)]:
        raise LoralabError(f"data.descriptions: class {missing[0]!r} has none; describe every class or none")
    pairs = [(template.replace(CLASS, phrase), label) for label, name in enumerate(classes) for phrase in descriptions[name]]
    labels = np.array([label for _, label in pairs], dtype=np.int64)
    return Examples([text for text, _ in pairs], labels, np.arange(len(pairs)), tuple(classes))


def set_prompt(tokenizer: Tokenizer, template: str, descriptions: Examples) -> Prompt:
    """Make the tokenizer add a prompt to every text, and tokenize the class words.

    template: `{}` is the mask; `{text}` is the text, first by default. descriptions: words or phrases, labelled. As in PET, the
    parts of the prompt are tokenized separately, and a word like one that follows another. Raises LoralabError for a tokenizer
    without a mask token, a prompt that leaves no room for the text, and an unknown word.
    """
    from tokenizers import normalizers, processors

    mask = next((token for token in MASKS if tokenizer.token_to_id(token) is not None), None)
    if mask is None:
        raise LoralabError(f"model.head=prompt: the tokenizer has no mask token ({' or '.join(MASKS)}): use another head")
    words, remarks = _tokenize_words(tokenizer, descriptions)
    before, _, after = (template if TEXT in template else f"{TEXT} {template}").replace(CLASS, mask).partition(TEXT)
    opening, closing = _special_tokens(tokenizer)
    first = [*opening, *_tokenize(tokenizer, before.rstrip()).ids]
    last = [*_tokenize(tokenizer, after.rstrip()).ids, *closing]
    assert tokenizer.truncation is not None
    max_length = tokenizer.truncation["max_length"]
    if len(first + last) >= max_length:
        raise LoralabError(f"data.template leaves no room for a text: it takes {len(first + last)} of {max_length} tokens")
    place = [i for i, token in enumerate(first + last) if token == tokenizer.token_to_id(mask)]
    if len(place) != 1:
        raise LoralabError(f"data.template={template!r} contains {len(place)} masks: write {{}} once, and no {mask}")
    parts = [
        {"id": name, "ids": ids, "tokens": [tokenizer.id_to_token(i) for i in ids]}
        for name, ids in (("before", first), ("after", last))
    ]
    tokenizer.post_processor = processors.TemplateProcessing(single=["before", "$A", "after"], special_tokens=parts)
    if before != before.rstrip():  # a byte-level tokenizer has other tokens after a space
        current = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(" "), *current])
    return Prompt(place[0] if place[0] < len(first) else place[0] - len(first + last), words, remarks)


def _tokenize_words(tokenizer: Tokenizer, descriptions: Examples) -> tuple[list[list[list[int]]], list[str]]:
    """Return the token ids of the class words, and a remark if some words have several tokens."""
    words: list[list[list[int]]] = [[] for _ in descriptions.classes]
    several = []
    for word, label in zip(descriptions.texts, descriptions.require_labels(), strict=True):
        encoding = _tokenize(tokenizer, f" {word}")
        if not encoding.ids or set(UNKNOWN) & set(encoding.tokens):
            raise LoralabError(
                f"model.head=prompt: the tokenizer does not know {word!r}: "
                f"give class {descriptions.classes[label]!r} other words with data.descriptions"
            )
        words[label].append(encoding.ids)
        several += [word] if len(encoding.ids) > 1 else []
    if not several:
        return words, []
    return words, [f"{len(several)} words have several tokens, such as {several[0]!r}: their mean is used"]


def _special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a text."""
    encoding = tokenizer.encode("a")
    start = encoding.special_tokens_mask.index(0)
    stop = len(encoding) - encoding.special_tokens_mask[::-1].index(0)
    return encoding.ids[:start], encoding.ids[stop:]


def _tokenize(tokenizer: Tokenizer, text: str) -> Encoding:
    return tokenizer.encode(text, add_special_tokens=False)
