"""What reading texts with a model loses: texts cut or emptied, and words that the vocabulary does not have."""

from __future__ import annotations

from collections.abc import Mapping

from loralab.data.types import Encoded, Examples, Ints, TextFacts, count_of

MAX_UNKNOWN = 0.05
"""A larger share of unknown tokens is remarked on."""
LENGTH_STEP = 64
"""A proposed `data.max_length` is a multiple of this."""


def text_notices(
    encoded: Mapping[str, Encoded], rows: Mapping[str, Examples], max_length: int, base: str, positions: int
) -> list[str]:
    """Report what is lost of the parts of a run, with the row number of a text that cleaning left empty.

    encoded: the tokens by part; rows: the texts of these parts. max_length: the tokens kept of a text; positions: those that the
    encoder can read. base: its name.
    """
    losses = loss_notices({part: (len(texts), len(texts.tokens), texts.facts) for part, texts in encoded.items()}, max_length, base)
    if any(texts.facts.cut for texts in encoded.values()):
        longest = max(texts.facts.longest for texts in encoded.values())
        losses[0] += f"; {longer_limit(longest, max_length, positions, base)}"
    emptied = {part: rows[part].rows[[*texts.facts.emptied]] for part, texts in encoded.items() if texts.facts.emptied}
    return [*losses, *_emptied_notices(emptied)]


def _emptied_notices(emptied: Mapping[str, Ints]) -> list[str]:
    """Report texts that cleaning left empty. emptied: their row numbers by part."""
    if not emptied:
        return []
    count, first = sum(map(len, emptied.values())), min(emptied, key=lambda part: emptied[part].min())
    listed = ", ".join(f"{len(numbers):,} {part}" for part, numbers in emptied.items())
    what = f"{count_of(count, 'text is', 'texts are')} empty after cleaning, such as row {emptied[first].min()} ({first})"
    return [f"{what}: {listed}; data.clean=none keeps them"]


def longer_limit(needed: int, max_length: int, positions: int, base: str) -> str:
    """Return the setting that reads texts of `needed` tokens, or as much as the encoder's positions allow."""
    if max_length >= positions:
        return f"{base} reads no more than {positions:,} tokens"
    limit = min(positions, -(-needed // LENGTH_STEP) * LENGTH_STEP)
    return f"data.max_length={limit} reads {'all of them' if limit >= needed else f'as much as {base} can'}, and takes more time"


def loss_notices(parts: Mapping[str, tuple[int, int, TextFacts]], max_length: int, base: str) -> list[str]:
    """Report texts cut at `max_length` tokens, and then unknown tokens.

    parts: number of texts, number of tokens and facts by the name of a part, which may be empty.
    """
    notices = []
    lost, cut = sum(facts.lost for *_, facts in parts.values()), sum(facts.cut for *_, facts in parts.values())
    if lost:
        counts = ", ".join(f"{facts.cut:,} of {texts:,} {part}".rstrip() for part, (texts, _, facts) in parts.items() if facts.cut)
        share = _percent(lost / (lost + cut * max_length))
        verb = "text is" if [texts for texts, *_ in parts.values()] == [1] else "texts are"
        notices.append(
            f"{counts} {verb} longer than data.max_length={max_length} tokens: the rest, {share} of their tokens, is not read"
        )
    shares = {part: facts.unknown / max(1, tokens - facts.special) for part, (_, tokens, facts) in parts.items()}
    if unknown := {part: share for part, share in shares.items() if share > MAX_UNKNOWN}:
        same = len(unknown) == len(shares) and len({*map(_percent, unknown.values())}) == 1
        listed = {"": next(iter(unknown.values()))} if same else unknown
        counts = ", ".join(f"{_percent(share)} of the {part}".rstrip() for part, share in listed.items())
        advice = "choose an encoder for the language, such as the multilingual model.base=xlm-roberta-base"
        notices.append(f"{counts} tokens are unknown to {base}: {advice}")
    return notices


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"
