"""Judge whether one model is better than another."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftkit.results.anytime import confidence_sequence, e_value
from ftkit.results.paired import paired_interval, sign_flip_test
from ftkit.results.statistics import ALPHA, Interval, seed_spread

Outcome = Literal["better", "worse", "equivalent", "not shown"]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the answers of two models to the same examples show.

    Attributes:
        outcome: ``better``, ``worse``, ``equivalent`` or ``not shown``.
        effect: The accuracy of A minus that of B.
        interval: Its interval: the wider one, at either end, of the next two.
        interval_examples: For new examples and the models at hand.
        interval_seeds: For new seeds and new examples; None with one seed.
        level: Confidence of the intervals.
        n: Examples.
        only_a: Examples of which A gets more right.
        only_b: Examples of which B gets more right.
        test: ``fixed_n`` or ``anytime``, which stays valid however often it is asked while examples are added.
        p: The p-value of that test of no difference, over examples; not corrected for ``comparisons``.
        e_value: Of the anytime test, see :func:`ftkit.results.anytime.e_value`; None otherwise.
        minimal_effect: The effect that must be exceeded to be better or worse.
        margin: Within which effects count as equivalent; None if nothing was asked.
        comparisons: What the level of 5% was divided by.
    """

    outcome: Outcome
    effect: float
    interval: Interval
    interval_examples: Interval
    interval_seeds: Interval | None
    level: float
    n: int
    only_a: int
    only_b: int
    test: Literal["fixed_n", "anytime"]
    p: float
    e_value: float | None
    minimal_effect: float
    margin: float | None
    comparisons: int


def judge(
    gains: np.ndarray,
    answers: int = 1,
    growing: bool = False,
    minimal_effect: float = 0.0,
    margin: float | None = None,
    comparisons: int = 1,
    growing_seeds: bool = False,
) -> Judgement:
    """Judge A against B.

    A is better if the interval of the effect lies above ``minimal_effect``, worse if below its negative. It is
    equivalent, whatever else, if the interval of the two one-sided tests lies within ``margin``: that of 90% where n is
    fixed, that of 95% with growing data. With several seeds both kinds of intervals must say so.

    Args:
        gains: int ``(seeds, n)``: what A gets right minus what B gets right, by seed and example.
        answers: What a right answer counts: 1, or 2 where an answer can be half right.
        growing: Whether examples may have been looked at before and more may come.
        minimal_effect: The effect that must be exceeded.
        margin: The largest effect that does not matter; None not to ask.
        comparisons: The number of verdicts that are asked together, which the level is divided by (Bonferroni).
        growing_seeds: Whether seeds may be added and asked about again: from two on the level is divided by
            seeds * (seeds - 1) too, whose inverses sum to 1, so that the levels of all looks sum to that of one.

    Example:
        >>> gains = np.repeat([1, -1, 0], [25, 5, 270])[None]
        >>> judge(gains).outcome, judge(gains, minimal_effect=0.05).outcome, judge(gains, margin=0.2).outcome
        ('better', 'not shown', 'equivalent')

    Source of the equivalence test: D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power
    approach, J. Pharmacokinetics and Biopharmaceutics 15 (1987).
    """
    seeds, n = gains.shape
    comparisons *= seeds * (seeds - 1) if growing_seeds and seeds > 1 else 1
    total, most = gains.sum(axis=0, dtype=np.int64), seeds * answers
    between = seed_spread(gains / answers) if min(seeds, n) > 1 else None

    def intervals(alpha: float) -> list[Interval]:
        of_examples = (confidence_sequence if growing else paired_interval)(total, most, level=1 - alpha)
        return [of_examples] if between is None else [of_examples, between.interval(alpha)]

    alpha = ALPHA / comparisons
    both = intervals(alpha)
    low, high = min(one[0] for one in both), max(one[1] for one in both)
    outcome: Outcome = "better" if low > minimal_effect else "worse" if high < -minimal_effect else "not shown"
    if margin is not None:
        one_sided = both if growing else intervals(2 * alpha)
        outcome = "equivalent" if all(-margin < one[0] and one[1] < margin for one in one_sided) else outcome
    evidence = e_value(total, most) if growing else None
    return Judgement(
        outcome=outcome,
        effect=float(total.sum()) / (n * most),
        interval=(low, high),
        interval_examples=both[0],
        interval_seeds=both[1] if between is not None else None,
        level=1 - alpha,
        n=n,
        only_a=int((total > 0).sum()),
        only_b=int((total < 0).sum()),
        test="anytime" if growing else "fixed_n",
        p=sign_flip_test(total) if evidence is None else min(1.0, 1 / evidence) if evidence else 1.0,
        e_value=evidence,
        minimal_effect=minimal_effect,
        margin=margin,
        comparisons=comparisons,
    )
