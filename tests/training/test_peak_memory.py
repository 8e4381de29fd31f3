"""Peak memory is that of the part measured."""

import pytest
import torch

from ftkit.training import peak_memory


def test_the_peak_is_of_what_came_since_the_reset() -> None:
    peak_memory.reset_peak_memory()
    before = peak_memory.peak_memory_mb()
    block = torch.ones(25_000_000)  # 100 MB
    assert 90 < peak_memory.peak_memory_mb() - before < 130
    del block
    assert peak_memory.peak_memory_mb() - before > 90  # a peak, not what is in use
    if peak_memory._CLEAR.exists():
        peak_memory.reset_peak_memory()
        assert peak_memory.peak_memory_mb() - before < 40


def test_resident_memory_is_what_is_in_use_now() -> None:
    before = peak_memory.resident_memory_mb()
    block = torch.ones(25_000_000)  # 100 MB
    assert 90 < peak_memory.resident_memory_mb() - before < 130
    del block
    assert peak_memory.resident_memory_mb() - before < 40


def test_where_there_is_no_proc_the_system_is_asked(tmp_path, monkeypatch) -> None:
    from_proc = peak_memory.peak_memory_mb()
    monkeypatch.setattr(peak_memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(peak_memory, "_CLEAR", tmp_path / "none")
    peak_memory.reset_peak_memory()
    assert peak_memory.peak_memory_mb() >= 0.9 * from_proc


@pytest.mark.skipif(not peak_memory._CLEAR.exists(), reason="the peak cannot be reset here")
def test_what_an_earlier_run_left_behind_does_not_count() -> None:
    peak_memory.reset_peak_memory()
    before = peak_memory.peak_memory_mb()
    crumbs = [torch.ones(1_000) for _ in range(30_000)]  # 120 MB in blocks too small to be given back one by one
    kept = crumbs[::1_000]
    cycle = [torch.ones(25_000_000)]  # 100 MB that only the garbage collector finds
    cycle.append(cycle)
    del crumbs, cycle
    assert peak_memory.peak_memory_mb() - before > 180
    peak_memory.reset_peak_memory()
    assert peak_memory.peak_memory_mb() - before < 60
    assert len(kept) == 30
