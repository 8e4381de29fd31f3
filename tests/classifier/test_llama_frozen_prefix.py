"""A Llama's kept outputs of the frozen part, against computing everything in every step."""

from pathlib import Path

import pytest
from watched_runs import CACHED, SETTINGS, Messages, assert_same, entries, run

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("name", SETTINGS)
def test_cached_is_uncached(name: str, llama_folder: Path) -> None:
    model, data = SETTINGS[name]
    cached, plain = (run(llama_folder, Messages(**data), cache_frozen=switch, **model) for switch in (True, False))
    assert set(plain.attached) == {False}
    assert set(cached.attached) == {name in CACHED}
    assert max(plain.losses) - min(plain.losses) > 1e-2
    assert_same(cached, plain)


def test_every_setting_shares_one_store(llama_folder: Path) -> None:
    """All of them one after the other: an entry taken for another's would show."""
    for name in CACHED:
        model, data = SETTINGS[name]
        plain = run(llama_folder, Messages(**data), cache_frozen=False, **model)
        assert_same(run(llama_folder, Messages(**data), **model), plain)


def test_one_computation_serves_the_rows_that_differ_behind_it(llama_folder: Path, cache: Path) -> None:
    run(llama_folder, Messages())
    kept = entries(cache)
    assert len(kept) == 3  # train, validation and test
    run(llama_folder, Messages(), pooling="first", seed=4)
    run(llama_folder, Messages(padded=False), pooling="last_real")
    assert entries(cache) == kept


def test_dropout_of_the_attention_is_drawn_anew(llama_folder: Path, cache: Path) -> None:
    """It is no layer of its own in this family, and still nothing that could be kept."""
    model = run(llama_folder, Messages(), dropout=0.1)
    assert not any(model.attached)
    assert entries(cache) == set()
    without = run(llama_folder, Messages())
    assert max(abs(a - b) for a, b in zip(model.losses, without.losses, strict=True)) > 1e-3
