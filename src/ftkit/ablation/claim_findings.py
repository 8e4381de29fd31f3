"""Judge a published statement about the rows of an ablation: confirmed, refuted or not testable."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ftkit.ablation.claims import Claim
from ftkit.ablation.run_answers import over_seeds, same_examples
from ftkit.ablation.sweep import Choice, SweepRow, only_numbers
from ftkit.results.best_ratio import Scores, best_ratio
from ftkit.results.planning import examples_needed
from ftkit.results.preferences import WON
from ftkit.results.statistics import ALPHA, Interval
from ftkit.results.verdict import judge

Outcome = Literal["confirmed", "refuted", "not testable"]
_OUTCOMES: dict[str, Outcome] = {"better": "confirmed", "worse": "refuted"}


@dataclass(frozen=True)
class Finding:
    """Hold what the runs of one row say about a claim."""

    row: int  # its number
    outcome: Outcome  # confirmed or refuted if the whole interval says so
    figure: float | None = None  # the ratio of the best values, or the difference in accuracy
    interval: Interval | None = None  # of 95%, shared among the rows of the claim (Bonferroni)
    reason: str = ""  # why it is not testable


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with what was found of each of its rows."""

    claim: Claim
    findings: Sequence[Finding]

    @property
    def outcome(self) -> Outcome:
        """Return ``refuted`` if any row refutes it, ``confirmed`` if all confirm it."""
        found = {one.outcome for one in self.findings}
        return "refuted" if "refuted" in found else "confirmed" if found == {"confirmed"} else "not testable"


def judge_claim(claim: Claim, rows: Mapping[int, SweepRow], converged: Collection[int]) -> JudgedClaim:
    """Set the rows of a claim, of those of an ablation by number, against the one that it names."""
    against = rows[claim.against]
    return JudgedClaim(claim, [_finding(claim, rows[number], against, converged) for number in claim.rows])


def _finding(claim: Claim, row: SweepRow, against: SweepRow, converged: Collection[int]) -> Finding:
    seeds = sorted({run.seed for run in row.done} & {run.seed for run in against.done})
    if not seeds:
        return Finding(row.number, "not testable", reason="no seed in common was run to the end")
    if apart := [one.number for one in (row, against) if one.number not in converged]:
        return Finding(row.number, "not testable", reason=f"row {apart[0]} did not converge")
    return _difference(claim, row, against, seeds) if claim.ratio_of is None else _ratio(claim, row, against, seeds)


def _difference(claim: Claim, row: SweepRow, against: SweepRow, seeds: Sequence[int]) -> Finding:
    """Judge whether a row is better on test."""
    ours, theirs = (over_seeds([run.answers for run in one.done if run.seed in seeds]) for one in (row, against))
    if ours is None or theirs is None or not same_examples(ours, theirs):
        return Finding(row.number, "not testable", reason="no answers to the same test examples")
    gains = ours.correct.astype(np.int64) - theirs.correct
    found = judge(gains, WON, comparisons=len(claim.rows))
    if found.outcome in _OUTCOMES:
        return Finding(row.number, _OUTCOMES[found.outcome], found.effect, found.interval)
    reason = f"{found.n:,} test examples and {len(seeds)} seed{'s' if len(seeds) > 1 else ''} show no difference"
    if found.effect > 0 and (needed := examples_needed(found.effect, float((gains != 0).mean()))):
        reason += f"; for one of this size it takes about {needed:,} examples"
    return Finding(row.number, "not testable", found.effect, found.interval, reason)


def _ratio(claim: Claim, row: SweepRow, against: SweepRow, seeds: Sequence[int]) -> Finding:
    """Compare the best values of an option."""
    assert claim.ratio_of is not None
    assert claim.between is not None
    ours, theirs = (_scores(one.choice, claim.ratio_of, seeds) for one in (row, against))
    if ours is None or theirs is None:
        reason = f"rows {row.number} and {against.number} were not both tuned over positive values of it"
        return Finding(row.number, "not testable", reason=reason)
    if any(one.choice is not None and one.choice.pruned for one in (row, against)):
        reason = "some tries were stopped early, so that the best value of each seed is not known"
        return Finding(row.number, "not testable", reason=reason)
    found = best_ratio(ours, theirs, 1 - ALPHA / len(claim.rows))
    (low, high), (least, most) = found.interval, claim.between
    if not low <= found.ratio <= high:
        reason = "the best value by the mean over the seeds is far from the seeds' own: one of them differs too much"
        return Finding(row.number, "not testable", found.ratio, found.interval, reason)
    if least <= low and high <= most:
        return Finding(row.number, "confirmed", found.ratio, found.interval)
    if high < least or most < low:
        return Finding(row.number, "refuted", found.ratio, found.interval)
    reason = "the seeds differ too much: run more"
    if len(seeds) < 2:
        reason = "one seed does not tell how much the best value varies: run more"
    elif math.isinf(found.resolution):
        reason = "with some seed the best is at the edge of what was tried: widen it"
    elif found.resolution > most / least:
        reason = f"the values tried lie too far apart for {least:g} to {most:g}: try some between them"
    return Finding(row.number, "not testable", found.ratio, found.interval, reason)


def _scores(choice: Choice | None, option: str, seeds: Sequence[int]) -> Scores | None:
    """Return the positive numbers that were tried, and how good the best try with each was by seed.

    A try that failed is worse than any other.
    """
    if choice is None or not set(seeds) <= set(choice.seeds):
        return None
    sign = 1.0 if choice.mode == "max" else -1.0
    best: dict[float, np.ndarray] = {}
    for setting, values in choice.tries:
        known = [values[choice.seeds.index(seed)] for seed in seeds]
        scores = np.array([-np.inf if value is None else sign * value for value in known])
        for number in only_numbers([setting.get(option)]):
            best[number] = np.maximum(scores, best.get(number, scores))
    numbers = sorted(best)
    if not numbers or numbers[0] <= 0:
        return None
    return Scores(np.array(numbers), np.stack([best[number] for number in numbers], axis=1))
