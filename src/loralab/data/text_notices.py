"""What reading texts with a model loses: texts cut or emptied, and words that the vocabulary does not have."""

from __future__ import annotations

from collections.abc import Mapping

from loralab.data.types import Encoded, Examples, TextFacts

MAX_UNKNOWN = 0.05
"""A larger share of unknown tokens is remarked on."""


def text_notices(encoded: Mapping[str, Encoded], rows: Mapping[str, Examples], max_length: int, base: str) -> list[str]:
    """Report what is lost of the parts of a run, with the row number of a text that cleaning left empty.

    encoded: the tokens by part; rows: the texts of these parts. max_length, base: of the encoder, for the messages.
    """
    losses = loss_notices({part: (len(texts), len(texts.tokens), texts.facts) for part, texts in encoded.items()}, max_length, base)
    for part, texts in encoded.items():
        if emptied := texts.facts.emptied:
            verb = "s are" if len(emptied) > 1 else " is"
            losses.append(f"{len(emptied):,} {part} text{verb} empty after cleaning, such as row {rows[part].rows[emptied[0]]}")
    return losses


def loss_notices(parts: Mapping[str, tuple[int, int, TextFacts]], max_length: int, base: str) -> list[str]:
    """Report texts cut at `max_length` tokens and unknown tokens.

    parts: number of texts, number of tokens and facts by the name of a part, which may be empty.
    """
    notices = []
    tokens, lost = sum(count for _, count, _ in parts.values()), sum(facts.lost for *_, facts in parts.values())
    if lost:
        counts = ", ".join(f"{facts.cut:,} of {texts:,} {part}".rstrip() for part, (texts, _, facts) in parts.items() if facts.cut)
        notices.append(
            f"{counts} texts are longer than data.max_length={max_length} tokens: the rest, {lost / (lost + tokens):.0%} of all "
            f"tokens, is not read"
        )
    unknown = sum(facts.unknown for *_, facts in parts.values()) / max(1, tokens)
    if unknown > MAX_UNKNOWN:
        advice = "choose an encoder for the language, such as model.base=xlm-roberta-base"
        notices.append(f"{unknown:.0%} of the tokens are unknown to {base}: {advice}")
    return notices
