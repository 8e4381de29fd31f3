"""How often a verdict is false when equal models are compared again and again while data grow, and what it costs.

    python benchmarks/bench_verdict.py            # some minutes on one core; writes results/DATE-verdict.json

Each history is of two equal models. It counts as false if any of its looks says better or worse.

- Examples grow from 10 to 1,000 in 100 looks, at four rates of disagreement; and in 50 looks with three seeds a model,
  for which each example is equally hard: by the test of ``ftkit verdict`` for growing data, and by the exact test for a
  fixed n at each look (naive).
- Seeds grow from one to six on the same 300 examples, with accuracies that differ by 1 point from seed to seed: by
  ``ftkit verdict`` for rows, and by the exact test at each number of seeds (naive).
- The examples that the test for growing data takes, over those of the exact test, for the same power.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from contest import write_record
from ftkit.results.anytime import e_value
from ftkit.results.paired import sign_flip_test
from ftkit.results.planning import examples_needed
from ftkit.results.statistics import mcnemar_exact
from ftkit.results.verdict import judge


@cache
def found_anytime(only_a: int, only_b: int) -> bool:
    """Whether the test for growing data finds a difference."""
    return e_value(np.repeat([1, -1], [only_a, only_b])) > 20 if only_a + only_b else False


@cache
def found_exact(only_a: int, only_b: int) -> bool:
    """Whether the exact test does."""
    return mcnemar_exact(only_a, only_b) < 0.05


def examples_grow(rng: np.random.Generator, rate: float, histories: int) -> dict[str, float]:
    """Return the share of false histories by test, with one answer an example."""
    gains = rng.choice(np.array([1, -1, 0], np.int8), p=[rate / 2, rate / 2, 1 - rate], size=(histories, 1000))
    wins, losses = ((gains == sign).cumsum(axis=1)[:, 9::10].tolist() for sign in (1, -1))

    def false(found: Callable[[int, int], bool]) -> float:
        return float(np.mean([any(map(found, a, b)) for a, b in zip(wins, losses, strict=True)]))

    return {"disagreement": rate, "naive": false(found_exact), "anytime": false(found_anytime)}


def seeded(rng: np.random.Generator, seeds: int, n: int, spread: float) -> np.ndarray:
    """Return the gains of two models that are equally good on average: int8 ``(seeds, n)``."""
    hard = rng.beta(4, 1, size=n)  # the chance of a right answer
    shifts = rng.normal(0, spread, size=(2, seeds, 1))
    right = rng.random((2, seeds, n)) < hard + shifts
    return right[0].astype(np.int8) - right[1]


def examples_grow_with_seeds(rng: np.random.Generator, histories: int) -> dict[str, float]:
    """Return the share of false histories by test, with three answers an example; the naive one of a tenth of them."""
    bets = -np.cos(np.pi * (np.arange(4096) + 0.5) / 4096)  # as in ftkit.results.anytime, for all looks at once
    values = np.arange(-3, 4)
    capital = np.log1p(np.outer(values / 3, bets))  # (values, bets)
    naive, anytime = [], []
    for history in range(histories):
        gains = seeded(rng, 3, 1000, 0.0).sum(axis=0)
        counts = (gains[:, None] == values).cumsum(axis=0)[19::20]  # (looks, values)
        evidence = np.exp(logsumexp(counts @ capital, axis=1)) / 4096
        anytime.append(bool((evidence > 20).any()))
        if history % 10 == 0:
            assert np.isclose(evidence[-1], e_value(gains, 3))
            naive.append(any(sign_flip_test(gains[:n]) < 0.05 for n in range(20, 1001, 20)))
    return {"histories": histories, "naive": float(np.mean(naive)), "anytime": float(np.mean(anytime))}


def seeds_grow(rng: np.random.Generator, histories: int) -> dict[str, Any]:
    """Return the share of histories with a finding at any number of seeds, of one alone, and by the exact test."""
    naive, ours, one, three = [], [], [], []
    for _ in range(histories):
        gains = seeded(rng, 6, 300, 0.01)
        looks = [judge(gains[:k], growing_seeds=True) for k in range(1, 7)]
        three.append(judge(gains[:3]).outcome != "not shown")
        naive.append(any(look.p < 0.05 for look in looks))
        one.append(looks[0].outcome != "not shown")
        ours.append(any(look.outcome != "not shown" for look in looks[1:]))
    shares = {"naive_1_to_6": naive, "verdict_2_to_6": ours, "one_seed": one, "three_planned_seeds": three}
    return {name: float(np.mean(found)) for name, found in shares.items()}


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rng, started = np.random.default_rng(1), time.perf_counter()
    record = {
        "histories": options.histories,
        "false_while_examples_grow": [examples_grow(rng, rate, options.histories) for rate in (0.02, 0.05, 0.2, 0.5)],
        "false_while_examples_grow_three_seeds": examples_grow_with_seeds(rng, options.histories),
        "found_while_seeds_grow": seeds_grow(rng, options.histories // 5),
        "examples_needed": [
            {
                "difference": difference,
                "disagreement": rate,
                "fixed_n": examples_needed(difference, rate),
                "anytime": examples_needed(difference, rate, growing=True),
            }
            for difference, rate in ((0.1, 0.15), (0.05, 0.1), (0.03, 0.1), (0.01, 0.05))
        ],
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(record, indent=1))
    write_record(options.results / f"{datetime.now(UTC):%Y-%m-%d}-verdict.json", record)


if __name__ == "__main__":
    main()
