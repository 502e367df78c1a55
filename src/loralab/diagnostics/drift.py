"""Do two sets of texts come from one source? Words, lengths, classes and confidences compared, each with its effect size.

A p-value alone says little: with enough rows every difference is significant. So each measure comes with what is normal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Ints = npt.NDArray[np.int64]
_WORD = re.compile(r"[^\W_]+")
DIVISIONS = 100
"""Random divisions of the pooled texts that say what is normal."""
PRIOR_WORDS = 1000.0
"""Words' worth of prior in the log-odds: a word seen a few times on one side cannot lead the list."""


@dataclass(frozen=True)
class NullComparison:
    """A measured value, and the values that texts of one source give: their middle, 95th percentile and p, the share as high."""

    value: float
    normal: float
    upper: float
    p: float


@dataclass(frozen=True)
class Vocabulary:
    """divergence: Jensen-Shannon, bits, 0 to 1; unseen: share of the second side's words that the first never has."""

    divergence: NullComparison
    unseen: NullComparison


@dataclass(frozen=True)
class Word:
    """A word with its rate per 1,000 words on both sides and its z-score: above 0 more frequent on the second side."""

    word: str
    first: float
    second: float
    z: float


@dataclass(frozen=True)
class TestResult:
    """A two-sample test: effect is D of Kolmogorov and Smirnov, or Cramér's V."""

    effect: float
    p: float


def count_words(text: str) -> Counter[str]:
    """Count the words of a text, case and punctuation aside."""
    return Counter(_WORD.findall(text.casefold()))


def count_all_words(texts: Sequence[str]) -> Counter[str]:
    """Count the words of all texts together."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_WORD.findall(text.casefold()))
    return counts


def compare_vocabulary(first: Sequence[str], second: Sequence[str], *, divisions: int = DIVISIONS, seed: int = 0) -> Vocabulary:
    """Compare the words of two sets of texts, and against random divisions of all the texts into two sets as large."""
    matrix = _count_matrix([*first, *second])
    side = np.zeros(matrix.shape[0], dtype=np.int64)
    side[len(first) :] = 1

    def measure(sides: Ints) -> tuple[float, float]:
        b = matrix.T @ sides
        a = total - b
        return jensen_shannon(a, b), float(b[a == 0].sum() / max(1, b.sum()))

    total = np.asarray(matrix.sum(axis=0)).ravel()
    random = np.random.default_rng(seed)
    values = measure(side)
    normal = np.array([measure(random.permutation(side)) for _ in range(divisions)])
    return Vocabulary(*(_against(value, normal[:, i]) for i, value in enumerate(values)))


def jensen_shannon(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    """Jensen-Shannon divergence of two count vectors (vocabulary,), in bits: 0 equal, 1 nothing in common (Lin 1991)."""
    if a.sum() == 0 or b.sum() == 0:
        return float(a.sum() != b.sum())
    p, q = a / a.sum(), b / b.sum()
    return max(0.0, _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2)


def over_represented(first: Mapping[str, int], second: Mapping[str, int], *, prior: float = PRIOR_WORDS) -> list[Word]:
    """Return every word with the z-score of its log-odds ratio under an informative Dirichlet prior, the highest z first.

    Monroe, Colaresi and Quinn 2008, equations 16 and 22, with the pooled words, scaled to `prior` words, as the prior.
    """
    words = sorted({*first, *second})
    a, b = (np.array([counts.get(word, 0) for word in words], dtype=np.float64) for counts in (first, second))
    if not words or a.sum() == 0 or b.sum() == 0:
        return []
    weight = prior * (a + b) / (a + b).sum()

    def log_odds(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        odds: npt.NDArray[np.float64] = np.log((counts + weight) / (counts.sum() + prior - counts - weight))
        return odds

    with np.errstate(divide="ignore", invalid="ignore"):  # a vocabulary of one word has no odds
        z = (log_odds(b) - log_odds(a)) / np.sqrt(1 / (a + weight) + 1 / (b + weight))
    rates = 1000 * a / a.sum(), 1000 * b / b.sum()
    found = [Word(words[i], float(rates[0][i]), float(rates[1][i]), float(z[i])) for i in np.argsort(-z, kind="stable")]
    return [word for word in found if np.isfinite(word.z)]


def kolmogorov_smirnov(first: npt.ArrayLike, second: npt.ArrayLike) -> TestResult:
    """Compare two samples of a number: D is the largest distance of their distribution functions, 0 to 1."""
    from scipy.stats import ks_2samp

    found = ks_2samp(first, second, method="asymp")
    return TestResult(float(found.statistic), float(found.pvalue))


def compare_classes(first: Ints, second: Ints, classes: int) -> TestResult:
    """Compare the shares of the classes: Pearson's chi-squared, and Cramér's V = √(χ²/n) of two sides (Cramér 1946)."""
    from scipy.stats import chi2_contingency

    table = np.stack([np.bincount(labels, minlength=classes) for labels in (first, second)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return TestResult(0.0, 1.0)
    found = chi2_contingency(table, correction=False)
    return TestResult(float(np.sqrt(found.statistic / table.sum())), float(found.pvalue))


def _against(value: float, normal: npt.NDArray[np.float64]) -> NullComparison:
    """The observed division is one of the possible ones, hence the 1 in p (Phipson and Smyth 2010)."""
    p = (1 + int((normal >= value).sum())) / (1 + len(normal))
    return NullComparison(value, float(np.median(normal)), float(np.quantile(normal, 0.95)), p)


def _count_matrix(texts: Sequence[str]) -> csr_matrix:
    """Words of each text as sparse counts (texts, vocabulary)."""
    from scipy.sparse import csr_matrix

    index: dict[str, int] = {}
    columns: list[int] = []
    counts: list[int] = []
    starts = [0]
    for text in texts:
        for word, count in count_words(text).items():
            columns.append(index.setdefault(word, len(index)))
            counts.append(count)
        starts.append(len(columns))
    return csr_matrix((counts, columns, starts), shape=(len(texts), len(index)), dtype=np.int64)


def _entropy(p: npt.NDArray[np.float64]) -> float:
    some = p[p > 0]
    return float(-(some * np.log2(some)).sum())
