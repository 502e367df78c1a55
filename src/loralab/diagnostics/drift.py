"""Distribution shift between two sets of texts: words, lengths, classes and confidences, each with an effect size.

With enough rows every difference is significant, so vocabulary measures come with their values under random divisions.
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
"""Random divisions of the pooled texts that make the null distribution."""
PRIOR_WORDS = 1000.0
"""Weight of the prior in the log-odds, in words: a word seen a few times on one side does not rank first."""


@dataclass(frozen=True)
class NullComparison:
    """A measured value, the median and 95th percentile of its null distribution, and p, the null's share of values as high."""

    value: float
    median: float
    upper: float
    p: float


@dataclass(frozen=True)
class VocabularyShift:
    """divergence: Jensen-Shannon, bits, 0 to 1; unseen: share of the second side's words that the first side lacks."""

    divergence: NullComparison
    unseen: NullComparison


@dataclass(frozen=True)
class WordShift:
    """A word with its rate per 1,000 words on each side and its z-score: above 0 for more frequent on the second side."""

    word: str
    first: float
    second: float
    z: float


@dataclass(frozen=True)
class TestResult:
    """A two-sample test. effect: Kolmogorov and Smirnov's D, or Cramér's V."""

    effect: float
    p: float


def count_words(text: str) -> Counter[str]:
    """Count the case-folded words of a text."""
    return Counter(_WORD.findall(text.casefold()))


def compare_vocabulary(
    first: Sequence[str], second: Sequence[str], *, divisions: int = DIVISIONS, seed: int = 0
) -> VocabularyShift:
    """Compare the words of two sets of texts, with random divisions of all texts into sets of these sizes as the null."""
    matrix = _count_matrix([*first, *second])
    side = np.zeros(matrix.shape[0], dtype=np.int64)
    side[len(first) :] = 1

    def measure(sides: Ints) -> tuple[float, float]:
        b = matrix.T @ sides
        a = total - b
        return jensen_shannon(a, b), float(b[a == 0].sum() / max(1, b.sum()))

    total = np.asarray(matrix.sum(axis=0)).ravel()
    rng = np.random.default_rng(seed)
    values = measure(side)
    null = np.array([measure(rng.permutation(side)) for _ in range(divisions)])
    return VocabularyShift(*(_compare_with_null(value, null[:, i]) for i, value in enumerate(values)))


def jensen_shannon(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    """Jensen-Shannon divergence of two count vectors (vocabulary,), in bits: 0 for equal, 1 for disjoint (Lin 1991)."""
    if a.sum() == 0 or b.sum() == 0:
        return float(a.sum() != b.sum())
    p, q = a / a.sum(), b / b.sum()
    return max(0.0, _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2)


def rank_words(first: Mapping[str, int], second: Mapping[str, int], *, prior: float = PRIOR_WORDS) -> list[WordShift]:
    """Return every word with the z-score of its log-odds ratio under an informative Dirichlet prior, highest z first.

    Monroe, Colaresi and Quinn 2008, equations 16 and 22. The prior is the pooled words, scaled to `prior` words.
    """
    words = sorted({*first, *second})
    a, b = (np.array([counts.get(word, 0) for word in words], dtype=np.float64) for counts in (first, second))
    if not words or a.sum() == 0 or b.sum() == 0:
        return []
    weight = prior * (a + b) / (a + b).sum()

    def log_odds(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        odds: npt.NDArray[np.float64] = np.log((counts + weight) / (counts.sum() + prior - counts - weight))
        return odds

    with np.errstate(divide="ignore", invalid="ignore"):  # a vocabulary of one word has infinite odds
        z = (log_odds(b) - log_odds(a)) / np.sqrt(1 / (a + weight) + 1 / (b + weight))
    rates = 1000 * a / a.sum(), 1000 * b / b.sum()
    ranked = [WordShift(words[i], float(rates[0][i]), float(rates[1][i]), float(z[i])) for i in np.argsort(-z, kind="stable")]
    return [word for word in ranked if np.isfinite(word.z)]


def kolmogorov_smirnov(first: npt.ArrayLike, second: npt.ArrayLike) -> TestResult:
    """Compare two samples of a number. D is the largest distance between their distribution functions, 0 to 1."""
    from scipy.stats import ks_2samp

    result = ks_2samp(first, second, method="asymp")
    return TestResult(float(result.statistic), float(result.pvalue))


def compare_classes(first: Ints, second: Ints, classes: int) -> TestResult:
    """Compare class shares by Pearson's chi-squared test, with Cramér's V = √(χ²/n) for two sides (Cramér 1946)."""
    from scipy.stats import chi2_contingency

    table = np.stack([np.bincount(labels, minlength=classes) for labels in (first, second)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return TestResult(0.0, 1.0)
    result = chi2_contingency(table, correction=False)
    return TestResult(float(np.sqrt(result.statistic / table.sum())), float(result.pvalue))


def _compare_with_null(value: float, null: npt.NDArray[np.float64]) -> NullComparison:
    """P counts the observed division as one of the possible ones (Phipson and Smyth 2010)."""
    p = (1 + int((null >= value).sum())) / (1 + len(null))
    return NullComparison(value, float(np.median(null)), float(np.quantile(null, 0.95)), p)


def _count_matrix(texts: Sequence[str]) -> csr_matrix:
    """Return the word counts of each text, sparse (texts, vocabulary)."""
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
    positive = p[p > 0]
    return float(-(positive * np.log2(positive)).sum())
