"""Confidence intervals, paired tests, and the spread between seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Interval = tuple[float, float]
ALPHA = 0.05  # the level of significance of every verdict


def wilson_interval(correct: int, n: int, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion of ``n`` trials, within [0, 1]; ``(nan, nan)`` without any.

    Raises:
        ValueError: ``correct`` is not within 0 to ``n``, or ``level`` not within 0 to 1.

    Example:
        >>> low, high = wilson_interval(285, 300)
        >>> f"{low:.4f} {high:.4f}"
        '0.9192 0.9695'

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22
    (1927).
    """
    if not 0 <= correct <= n:
        raise ValueError(f"correct must lie within 0 to n (got correct={correct}, n={n})")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1 (got {level})")
    if n == 0:
        return math.nan, math.nan
    interval = stats.binomtest(int(correct), int(n)).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_limits(share: Any, n: Any, z: float) -> tuple[Any, Any]:
    """Return Wilson's score interval of shares, float or float ``(k,)``, of trials of which ``n`` need not be whole.

    Half its width is ``z`` standard errors.

    Example:
        >>> low, high = wilson_limits(0.95, 300, 1.959964)
        >>> f"{low:.4f} {high:.4f}"
        '0.9192 0.9695'
    """
    center, scale = share + z**2 / (2 * n), 1 + z**2 / n
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(0.0, (center - half) / scale), np.minimum(1.0, (center + half) / scale)


def is_significant(p: float) -> bool:
    """Return whether a p-value, corrected where several tests were made, is below the level of every verdict."""
    return p < ALPHA


def clopper_pearson(correct: float, n: float, level: float = 0.95) -> Interval:
    """Return the exact interval of a proportion: the inversion of the exact binomial test. Without trials it is 0 to 1.

    Example:
        >>> low, high = clopper_pearson(79, 100)
        >>> f"{low:.4f} {high:.4f}"
        '0.6971 0.8651'

    Source: C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the
    binomial, Biometrika 26 (1934).
    """
    tail, wrong = (1 - level) / 2, n - correct
    low = float(stats.beta.ppf(tail, correct, wrong + 1)) if correct else 0.0
    high = float(stats.beta.isf(tail, correct + 1, wrong)) if wrong else 1.0
    return low, high


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Return the exact McNemar test's p-value, two-sided, of examples that one of two models alone gets right.

    It is 1 when the models never disagree about an example.

    Example:
        >>> mcnemar_exact(5, 0), mcnemar_exact(6, 0)
        (0.0625, 0.03125)

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions,
    Psychometrika 12 (1947); exact binomial form.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts must not be negative (got {only_a} and {only_b})")
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(int(only_a), int(only_a + only_b), 0.5).pvalue)


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, Interval | None]:
    """Return a mean and its interval by Student's t; None where it would be no statement, as of equal values.

    Example:
        >>> mean, (low, high) = mean_interval(np.array([1.0, 2.0, 3.0]))
        >>> f"{mean:.2f} {low:.2f} {high:.2f}"
        '2.00 -0.48 4.48'
    """
    mean, n = float(values.mean()), len(values)
    spread = float(values.std(ddof=1)) if n > 1 and np.isfinite(values).all() else 0.0
    if not spread:
        return mean, None
    half = float(stats.t.isf((1 - level) / 2, n - 1)) * spread / n**0.5
    return mean, (mean - half, mean + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of several tests at once by Holm's step-down method; each stays at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted.tolist()


def rounded_p(p: float) -> str:
    """Return a p-value in two digits, or in as many as show on which side of the level of significance it lies.

    Example:
        >>> rounded_p(0.5847), rounded_p(0.05013), rounded_p(0.0499998), rounded_p(1.0)
        ('0.58', '0.0501', '0.0499998', '1')
    """
    texts = (f"{p:.{digits}g}" for digits in range(2, 17))
    return next((text for text in texts if float(text) != ALPHA), str(p))


@dataclass(frozen=True)
class Reach:
    """Whether a paired comparison can be significant at all, before or after it is made."""

    possible: bool  # whether the most favourable outcome would be significant
    best_p: float  # the p-value of that outcome: every disagreement in favour of one model
    needed: int  # disagreements, all in one direction, that significance takes


def can_be_significant(n: int, disagreements: int | None = None, alpha: float = ALPHA) -> Reach:
    """Return whether an exact McNemar test can ever reach ``alpha``, tested alone.

    Of several comparisons, Holm's correction tests all but the clearest at more than ``alpha`` by their number, and the
    last one at ``alpha`` itself: so this bound holds for each of them, and no lower one does.

    Args:
        n: Examples that both models answered.
        disagreements: How many of them only one of the two got right, or the difference between two published
            counts of right answers; as many as ``n`` when unknown.
        alpha: Level of significance.

    Example:
        Two rows of a table with 300 test messages that differ by 5 messages cannot be told apart, by 6 they might.

        >>> can_be_significant(300, 5)
        Reach(possible=False, best_p=0.0625, needed=6)
        >>> can_be_significant(300, 6).possible
        True
    """
    most = n if disagreements is None else disagreements
    needed = math.ceil(1 - math.log2(alpha))
    best = mcnemar_exact(most, 0)
    return Reach(best <= alpha, best, needed)


@dataclass(frozen=True)
class SeedSpread:
    """Where the uncertainty of a mean accuracy over seeds comes from."""

    mean: float  # mean accuracy over seeds and examples
    observed_sd: float  # standard deviation of the seeds' accuracies as they are
    seed_sd: float  # the part that the seeds cause: what would remain with an endless test set
    test_sd: float  # the noise of one seed's accuracy because the test set is finite
    standard_error: float  # of mean, with both sources: for new seeds and new test examples
    degrees_of_freedom: float  # of standard_error: few where a few seeds that lie far apart make most of it

    def interval(self, alpha: float = ALPHA) -> Interval:
        """Return the ``1 - alpha`` interval of the mean by Student's t, for new seeds and new test examples."""
        half = float(stats.t.isf(alpha / 2, self.degrees_of_freedom)) * self.standard_error
        return self.mean - half, self.mean + half


def seed_spread(correct: np.ndarray) -> SeedSpread:
    """Separate the spread between seeds from the noise of the test set.

    Two-way random-effects analysis of variance of right/wrong with seeds and examples as factors, one answer a cell.
    A negative estimate of a variance counts as 0.

    Args:
        correct: ``(seeds, n)``: how right every seed is on the same examples, from 0 or False to 1; at least two seeds.

    Raises:
        ValueError: There are fewer than two seeds or examples.

    Example:
        >>> twins = np.tile(np.arange(100) < 90, (3, 1))
        >>> spread = seed_spread(twins)
        >>> spread.seed_sd, round(spread.test_sd, 3), round(spread.standard_error, 3), spread.degrees_of_freedom
        (0.0, 0.03, 0.03, 99.0)

    Source of the degrees of freedom: F. E. Satterthwaite, An approximate distribution of estimates of variance
    components, Biometrics Bulletin 2 (1946).
    """
    x = np.asarray(correct, dtype=float)
    if x.ndim != 2 or min(x.shape) < 2:
        raise ValueError(f"at least two seeds and two examples are needed (got shape {x.shape})")
    seeds, n = x.shape
    by_seed, by_example, mean = x.mean(1), x.mean(0), float(x.mean())
    mean_square_seed = n * by_seed.var(ddof=1)
    mean_square_example = seeds * by_example.var(ddof=1)
    left = x - by_seed[:, None] - by_example[None, :] + mean
    residual = float((left**2).sum() / ((seeds - 1) * (n - 1)))
    seed_variance = _excess(mean_square_seed, residual) / n
    example_variance = _excess(mean_square_example, residual) / seeds
    # The squared standard error is a sum of the mean squares, each weighed by 1, 0 or -1, over the number of cells.
    by_seeds, by_examples = float(seed_variance > 0), float(example_variance > 0)
    parts = np.array([
        by_seeds * mean_square_seed,
        by_examples * mean_square_example,
        (1 - by_seeds - by_examples) * residual,
    ]) / x.size  # fmt: skip
    doubt = float((parts**2 / [seeds - 1, n - 1, (seeds - 1) * (n - 1)]).sum())
    return SeedSpread(
        mean=mean,
        observed_sd=float(by_seed.std(ddof=1)),
        seed_sd=math.sqrt(seed_variance),
        test_sd=math.sqrt((example_variance + residual) / n),
        standard_error=math.sqrt(seed_variance / seeds + example_variance / n + residual / (n * seeds)),
        degrees_of_freedom=max(1.0, float(parts.sum()) ** 2 / doubt) if doubt else math.inf,
    )


def _excess(mean_square: float, residual: float) -> float:
    """Return by how much a mean square exceeds the residual; 0 where the two are equal but for rounding."""
    return 0.0 if math.isclose(mean_square, residual, rel_tol=1e-9) else max(0.0, mean_square - residual)
