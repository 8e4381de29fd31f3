"""The loss of held-out texts before and after, paired by text."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ftkit.errors import InputError
from ftkit.results.forgetting import forgetting, read_losses, write_losses


def run(tokens: np.ndarray, gained: np.ndarray) -> np.ndarray:
    return np.stack([tokens, 3.0 * tokens, 3.0 * tokens + gained])


def test_the_mean_weighs_tokens_and_the_interval_is_that_of_a_ratio() -> None:
    tokens, gained = np.array([10.0, 20.0, 70.0]), np.array([1.0, 4.0, 5.0])
    found = forgetting([run(tokens, gained)])
    assert found is not None
    assert (found.before, found.n, found.tokens) == (3.0, 3, 100)
    assert found.increase == pytest.approx(0.1)
    left = gained - 0.1 * tokens  # what a text adds above its share of the tokens
    half = stats.t.isf(0.025, 2) * np.sqrt(3 / 2 * (left**2).sum()) / 100
    assert found.interval == pytest.approx((0.1 - half, 0.1 + half))


def test_intervals_cover_new_texts_and_new_seeds() -> None:
    numbers, hits = np.random.default_rng(5), 0
    for _ in range(400):
        tokens = numbers.integers(5, 50, 40).astype(float)
        text, seeds = numbers.normal(0, 0.1, 40), numbers.normal(0, 0.05, 4)
        found = forgetting([run(tokens, tokens * (0.2 + text + seed)) for seed in seeds])
        assert found is not None
        assert found.interval is not None
        hits += found.interval[0] <= 0.2 <= found.interval[1]
    assert hits / 400 > 0.92  # the seeds left out: 0.76


def test_nothing_forgotten_has_no_interval_and_other_texts_are_not_averaged() -> None:
    tokens = np.array([10.0, 20.0])
    untrained = forgetting([run(tokens, np.zeros(2))] * 2)
    assert untrained is not None
    assert (untrained.increase, untrained.interval) == (0.0, None)
    assert forgetting([run(tokens, np.zeros(2)), run(tokens + 1, np.zeros(2))]) is None
    assert forgetting([]) is None


def test_a_file_comes_back_exactly_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "losses-retained.tsv"
    write_losses(file, [3, 0, 7], [1 / 3, 0.0, 2.5], [0.1, 0.0, 1e-17])
    assert read_losses(file).tolist() == [[3, 7], [1 / 3, 2.5], [0.1, 1e-17]]
    whole = file.read_text()
    for damaged in ("", whole.replace("before", "loss"), whole.replace("2.5", "x"), whole.splitlines()[0]):
        file.write_text(damaged)
        with pytest.raises(InputError, match=r"losses-retained\.tsv: is damaged; fix: test the run again"):
            read_losses(file)
