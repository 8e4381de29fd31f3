"""Choosing tokens, checked against the probabilities themselves."""

import pytest
import torch

from ftkit.serving.jobs import Sampling
from ftkit.serving.sampling import choose


def draws(logits: list[float], count: int = 4000, **options: float) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    sampling = Sampling(1, **options)  # type: ignore[arg-type]
    rows = torch.tensor([logits]).expand(count, -1)
    tokens = choose(rows, [sampling] * count, [generator] * count)
    return [tokens.count(token) / count for token in range(len(logits))]


def test_without_a_temperature_the_likeliest_token_comes() -> None:
    assert draws([1.0, 3.0, 2.0], 5) == [0, 1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature: float) -> None:
    logits = [0.0, 1.0, -0.5, 2.0]
    expected = (torch.tensor(logits) / temperature).softmax(-1).tolist()
    assert draws(logits, temperature=temperature) == pytest.approx(expected, abs=0.03)


def test_top_k_and_top_p_leave_out_the_tail() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().tolist()
    assert draws(logits, temperature=1.0, top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    # 0.5 + 0.3 reach 0.7, the rest is not needed
    assert draws(logits, temperature=1.0, top_p=0.7) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert draws(logits, temperature=1.0, top_p=0.01) == [1, 0, 0, 0]


def test_what_reaches_top_p_exactly_is_enough() -> None:
    """The smallest set whose probability is at least top-p: a token that comes after top-p is reached is not in it."""
    equal = [0.0, 0.0, 0.0, 0.0]  # 0.25 each, and so their sums, are exact numbers
    assert draws(equal, 200, temperature=1.0, top_p=0.25) == [1, 0, 0, 0]
    assert draws(equal, temperature=1.0, top_p=0.5) == pytest.approx([0.5, 0.5, 0, 0], abs=0.03)
    assert draws(equal, temperature=1.0, top_p=0.75) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=0.03)


def test_a_tiny_temperature_and_huge_logits_do_not_overflow() -> None:
    for temperature in (1e-6, 1e-46, 5e-324):  # the last two are 0 in float32, and the last one's inverse is infinite
        assert draws([1e4, 3e4, -3e4], 20, temperature=temperature) == [0, 1, 0]


def test_a_seed_repeats_and_another_differs() -> None:
    logits = torch.zeros(1, 1000)
    first, again, other = (
        choose(logits, [Sampling(1, temperature=1.0)], [torch.Generator().manual_seed(seed)]) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_row_that_is_not_finite_is_told_and_the_others_are_chosen() -> None:
    logits = torch.tensor([[1.0, float("nan")], [1.0, 2.0], [float("inf"), 0.0], [float("-inf"), 0.0]])
    assert choose(logits, [Sampling(1)] * 4, [torch.Generator()] * 4) == [-1, 1, -1, 1]
