"""The plain values that stations of the data route hand on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Hidden = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Examples:
    """n texts in the order of their source.

    labels: int64[n], indices into `classes`, or None where the source has none. rows: int64[n], row numbers in the source,
    counted from 0 (the header not counted). classes: names, to the end.
    """

    texts: Sequence[str]
    labels: Ints | None
    rows: Ints
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def require_labels(self) -> Ints:
        """The labels, where the route has made sure that there are some."""
        if self.labels is None:
            raise ValueError("these examples have no labels")
        return self.labels

    def take(self, positions: Ints) -> Examples:
        """Return the examples at `positions` (not row numbers), in that order."""
        labels = None if self.labels is None else self.labels[positions]
        return replace(self, texts=[self.texts[i] for i in positions], labels=labels, rows=self.rows[positions])

    def join(self, others: Examples) -> Examples:
        """Return these examples and `others` after them, both labelled, with the same classes."""
        labels = np.concatenate([self.require_labels(), others.require_labels()])
        return replace(self, texts=[*self.texts, *others.texts], labels=labels, rows=np.concatenate([self.rows, others.rows]))

    def fingerprint(self) -> str:
        """Sixteen hex digits that are equal for equal texts, labels and class names in equal order."""
        digest = hashlib.sha256("\x1f".join(self.classes).encode())
        for text in self.texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\x1e")
        digest.update(b"" if self.labels is None else self.labels.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Encoded:
    """n tokenized texts laid end to end. tokens: int32[total]; starts: int64[n + 1]; labels: int64[n] or None.

    `hidden`, where it is kept: the hidden state of each token below layer `start`, (total, width) fp32, fp16, or bf16 as its
    bits in uint16, for which numpy has no type.
    """

    tokens: npt.NDArray[np.int32]
    starts: Ints
    labels: Ints | None
    pad_id: int
    hidden: Hidden | None = None
    start: int | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> Ints:
        """Tokens of each text, special tokens included: int64[n]."""
        return np.diff(self.starts)

    @cached_property
    def longest(self) -> int:
        """The most tokens of any text; 0 where there is none."""
        return int(self.lengths.max(initial=0))
