"""Say whether one model is better than another, from prediction files, run folders or rows of an output folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ftkit.ablation.sides import Side, read_side
from ftkit.errors import ExitCode, InputError, at_least
from ftkit.report.words import p_text
from ftkit.results.answers import any_answers
from ftkit.results.comparison import left_over, shared_examples
from ftkit.results.planning import examples_needed, seeds_needed
from ftkit.results.scan import AnswerFile
from ftkit.results.statistics import ALPHA, seed_spread
from ftkit.results.verdict import Judgement, judge
from ftkit.storage import sha256_of

_MOST_COMPARISONS = 10**9  # 5% divided by many more is too little for 1 less that to differ from 1


@dataclass(frozen=True, kw_only=True)
class Verdict(Judgement):
    """What :func:`verdict` found; ``print`` shows it, and ``to_json()`` holds everything.

    Attributes:
        a: The first side.
        b: The second side.
        seeds: The seeds that both have; empty where they are not known.
        warnings: What a reader has to know before believing it.
    """

    a: Side
    b: Side
    seeds: Sequence[int]
    warnings: Sequence[str]

    @property
    def exit_code(self) -> ExitCode:
        """Return the exit code of ``ftkit verdict``."""
        return ExitCode.DONE if self.outcome == "better" else ExitCode[self.outcome.upper().replace(" ", "_")]

    def to_json(self) -> str:
        """Return the verdict as JSON, unrounded."""
        found = {"verdict": self.outcome, "exit_code": self.exit_code, **vars(self)}
        sides = {key: {name: vars(found[key])[name] for name in ("name", "tries", "tries_from")} for key in "ab"}
        del found["outcome"]
        return json.dumps(found | sides, indent=2, ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        test = f"exact, all examples answered once ({p_text(self.p)})"
        if self.e_value is not None:
            needed = self.comparisons / ALPHA
            test = f"for growing data, valid at every look (e-value {self.e_value:.3g}, found from {needed:g} on)"
        named = {"minimal effect": self.minimal_effect, "margin": self.margin}
        asked = "".join(f", {name} {value:g}" for name, value in named.items() if value)
        covers = "new examples and new seeds" if self.interval_seeds else "new examples, for these trained models"
        (low, high), sides = self.interval, (("A", self.a), ("B", self.b))
        lines = [
            f"{self.outcome}: A against B{asked}",
            f"accuracy, A minus B: {self.effect:+.4f} ({100 * self.level:.4g}% interval {low:+.4f} to {high:+.4f})",
            f"n = {self.n:,}; A gets more right on {self.only_a:,}, B on {self.only_b:,}",
            f"test: {test}",
            f"the interval covers {covers}; seeds: {', '.join(map(str, self.seeds)) or 'not known'}",
            *(f"{key}: {one.name}; tries: {one.tries} ({one.tries_from})" for key, one in sides),
            *(f"warning: {one}" for one in self.warnings),
        ]
        return "\n  ".join(lines)


def verdict(
    a: Path | str,
    b: Path | str,
    *,
    margin: float | None = None,
    minimal_effect: float = 0.0,
    comparisons: int = 1,
    planned_n: int | None = None,
    planned_seeds: int | None = None,
    growing: bool = False,
    tries: tuple[int, int] | None = None,
    normalize_labels: bool = False,
) -> Verdict:
    """Say whether A is better than B, worse, equivalent, or none of these is shown.

    The exact test for a fixed number of examples is used where it is known that the whole split was answered once: in
    run folders and rows, and where ``planned_n`` says it. Else, and if ``growing``, a test that stays valid however
    often it is asked while examples are added (:func:`ftkit.results.anytime.e_value`).

    Args:
        a: A prediction file, a run folder, or a row of an output folder such as OUT/05_lora: all its finished seeds.
        b: The same for the other side.
        margin: Differences in accuracy below this do not matter: test whether the two are equivalent.
        minimal_effect: Better and worse need an interval that excludes smaller differences than this.
        comparisons: How many verdicts you ask for together: each is made at 5% divided by this.
        planned_n: How many examples were planned before the first answer; both files must have that many.
        planned_seeds: How many seeds were planned before the first verdict; both sides must have that many.
            Otherwise the level is divided by seeds * (seeds - 1), so that you may add seeds and ask again.
        growing: You may add examples to run folders, too, and ask again.
        tries: How many settings were tried for A and for B, such as [5,1], if no ledger counts them.
        normalize_labels: Ignore how labels and answers are spelled, as in `ftkit evaluate`.

    Raises:
        InputError: A side cannot be used, or the two cannot be compared.

    Example:
        >>> import tempfile
        >>> from ftkit.results.predictions import write_predictions
        >>> folder = Path(tempfile.mkdtemp())
        >>> ids, labels = [f"{n}" for n in range(60)], ["yes", "no"] * 30
        >>> write_predictions(folder / "a.tsv", ids, labels, labels)
        >>> write_predictions(folder / "b.tsv", ids, labels, ["yes"] * 60)
        >>> verdict(folder / "a.tsv", folder / "b.tsv").outcome
        'better'
    """
    at_least(0, minimal_effect=minimal_effect, **{} if margin is None else {"margin": margin})
    at_least(1, **{"tries": min(tries)} if tries else {})
    sides, seeds, gains, answers, warnings = _read(a, b, normalize_labels)
    k, n = gains.shape
    for name, planned, there in (("planned_seeds", planned_seeds, k), ("planned_n", planned_n, n)):
        if planned not in (None, there):
            raise InputError(f"there are {there:,}", field=name, got=planned, fix="ask once all are there")
    if planned_n is not None and growing:
        raise InputError("examples that are all there do not grow", field="planned_n", fix="leave out --growing")
    if planned_seeds is None and k > 1:
        warnings.append(f"{k} seeds that were not planned make the test stricter; --planned-seeds {k} if they were")
    if tries is not None:
        sides = [replace(one, tries=n, tries_from="as stated") for one, n in zip(sides, tries, strict=True)]
    if sides[0].tries != sides[1].tries:
        warnings.append(f"the sides had different numbers of tries: {sides[0].tries} and {sides[1].tries}")
    growing = growing or (planned_n is None and not all(one.whole for one in sides))
    comparisons *= sides[0].picked_from * sides[1].picked_from
    _check_comparisons(comparisons)
    found = judge(gains, answers, growing, minimal_effect, margin, comparisons, planned_seeds is None)
    if not all(one.converged for one in sides):
        found = replace(found, outcome="not shown")  # a difference says little about what was varied
    return Verdict(**vars(found), a=sides[0], b=sides[1], seeds=seeds, warnings=warnings)


def _check_comparisons(comparisons: int) -> None:
    at_least(1, comparisons=comparisons)
    if comparisons > _MOST_COMPARISONS:
        raise InputError(f"must be at most {_MOST_COMPARISONS:,}", field="comparisons", got=comparisons)


def plan(
    difference: float,
    a: Path | str | None = None,
    b: Path | str | None = None,
    *,
    disagreement: float | None = None,
    seed_sd: float | None = None,
    power: float = 0.8,
    comparisons: int = 1,
    normalize_labels: bool = False,
) -> dict[str, Any]:
    """Say how many examples and seeds it takes to see a true difference in accuracy.

    Args:
        difference: The difference, such as 0.02.
        a: A side of a :func:`verdict`; the next two are taken from both sides if they are given.
        b: The other side.
        disagreement: Share of examples that only one of the two gets right.
        seed_sd: Standard deviation of the difference between seeds.
        power: The probability of finding the difference.
        comparisons: How many verdicts are asked together.
        normalize_labels: Ignore how labels and answers are spelled, as in `ftkit evaluate`.

    Returns:
        What was planned for; ``examples_fixed_n`` and ``examples_anytime`` for the two tests if a disagreement is
        known; ``seeds`` if a deviation is. None where no number is enough.

    Raises:
        InputError: A value is impossible, or a side cannot be used.

    Example:
        >>> found = plan(0.03, disagreement=0.1)
        >>> found["examples_fixed_n"], found["examples_anytime"]
        (920, 1980)
    """
    _check_comparisons(comparisons)
    shared_variance, n = 0.0, 2
    if a is not None and b is not None:
        _, _, gains, answers, _ = _read(a, b, normalize_labels)
        seeds, n = gains.shape
        disagreement = float((gains != 0).mean())
        if min(seeds, n) > 1:
            spread = seed_spread(gains / answers)
            seed_sd = spread.observed_sd
            shared_variance = max(0.0, spread.standard_error**2 - seed_sd**2 / seeds)
    shares = {"disagreement": (disagreement, 1), "difference": (difference, disagreement or 1), "power": (power, 1)}
    for name, (share, most) in shares.items():
        if share is not None and not 0 < share <= most:
            raise InputError(f"must be above 0 and at most {most:g}", field=name, got=share)
    at_least(0, seed_sd=seed_sd or 0)
    found: dict[str, Any] = {"difference": difference, "power": power, "comparisons": comparisons}
    if disagreement is not None:
        found["disagreement"] = disagreement
        for name, growing in (("examples_fixed_n", False), ("examples_anytime", True)):
            found[name] = examples_needed(difference, disagreement, power, comparisons, growing)
    if seed_sd is not None:
        found["seed_sd"] = seed_sd
        found["seeds"] = seeds_needed(difference, seed_sd, power, comparisons, shared_variance, n)
    return found


Read = tuple[list[Side], list[int], np.ndarray, int, list[str]]


def _read(a: Path | str, b: Path | str, normalize_labels: bool) -> Read:
    """Return the sides; their seeds, gains ``(seeds, n)`` and what a right answer counts; and warnings."""
    sides = [read_side(a), read_side(b)]
    warnings = [f"{key}: {note}" for key, side in zip("AB", sides, strict=True) for note in side.notes]
    splits = {side.split for side in sides} - {""}
    if len(splits) > 1 or "train" in splits:
        problem, fix = "a verdict needs one split that nobody was trained on", "give predictions of test for both"
        raise InputError(problem, file=a, field="split", got=sorted(splits), fix=fix)
    if splits == {"val"}:
        warnings.append("choices are made on validation, so it flatters what was chosen; test decides")
    seeds, pairs = _matched(sides, warnings)
    if all(sha256_of(one) == sha256_of(other) for one, other in pairs):
        raise InputError(f"holds the very same answers as {b}", file=a, fix="give the answers of two models")
    read = any_answers([file for pair in pairs for file in pair], normalize_labels)
    gains = _gains(list(zip(read[::2], read[1::2], strict=True)))
    warnings += dict.fromkeys(f"{one.path}: {said}" for one in read for said in one.warnings)
    if not gains.any():
        warnings.append("the two are right on the same examples: are these two models?")
    return sides, seeds, gains, read[0].answers, warnings


def _matched(sides: Sequence[Side], warnings: list[str]) -> tuple[list[int], list[tuple[Path, Path]]]:
    """Return the seeds that are known and the files of both sides, seed by seed."""
    a, b = sides
    if len(a.files) == len(b.files) == 1:
        seeds = [seed for seed in {*a.files, *b.files} if seed is not None]
        if len(seeds) > 1:
            warnings.append(f"the sides have different seeds, {seeds[0]} and {seeds[1]}, which may make the difference")
        return seeds, list(zip(a.files.values(), b.files.values(), strict=True))
    seeds = sorted(seed for seed in a.files.keys() & b.files.keys() if seed is not None)
    if not seeds:
        raise InputError(f"no seed in common with {b.name}", file=a.name, field="seed", fix="give rows with the same")
    if left := {str(seed) for seed in a.files.keys() ^ b.files.keys()}:
        warnings.append(f"only one side has {', '.join(sorted(left))} among its seeds: left out")
    return seeds, [(a.files[seed], b.files[seed]) for seed in seeds]


def _gains(pairs: Sequence[tuple[AnswerFile, AnswerFile]]) -> np.ndarray:
    """Return what A gets right minus what B gets right, int ``(seeds, n)``, in one order of the examples."""
    gains, examples = [], []
    for a, b in pairs:
        mine, theirs = shared_examples(a, b)
        for one, places, other in ((a, mine, b), (b, theirs, a)):
            count, ids = left_over(one, places)
            if count:
                problem = f"{count:,} ids are not in {other.path}"
                fix = "answer the same examples with both; runs that draw a split of their own cannot be paired"
                raise InputError(problem, file=one.path, field="id", got=ids[0], fix=fix)
        order = np.argsort(a.identity)
        examples.append(np.stack([a.identity, a.target])[:, order])
        if not np.array_equal(examples[0], examples[-1]):
            problem = f"other examples or labels than in {pairs[0][0].path}"
            raise InputError(problem, file=a.path, fix="test all seeds on the same examples")
        gains.append((a.correct[mine].astype(np.int16) - b.correct[theirs])[order])
    return np.stack(gains)
