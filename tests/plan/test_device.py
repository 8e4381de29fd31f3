"""Times on a device, of operators, steps and runs, and what is measured of the CPU at hand."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from ftkit.plan import here
from ftkit.plan.device import Device, known
from ftkit.plan.steps import Costs, Memory, Step, between
from ftkit.plan.torch_internals import Operator, Work


def test_every_known_device_names_its_sources() -> None:
    assert len(known()) == 7
    assert all(Device.load(name).sources for name in known())


def test_an_operator_takes_as_long_as_its_products_or_its_memory() -> None:
    device = Device("x", 1, 1, {"float32": 1.0}, 0.5, 0.5, 0, 0, 0, 0, 0, True, 0, [])
    assert device.seconds(Work({Operator("float32", 1e12, 1): 2})) == pytest.approx(4)
    assert device.seconds(Work({Operator("", 0, 1e9): 3})) == pytest.approx(6)
    slow_host = replace(device, dispatch_us=5e6)
    assert slow_host.seconds(Work({Operator("float32", 1e12, 1): 2})) == pytest.approx(10)


def test_a_cpu_does_one_after_the_other() -> None:
    cpu = Device("x", 1, 1, {"float32": 1.0}, 0.5, 0.5, 0, 5e6, 0, 0, 0, False, 0, [])
    assert cpu.seconds(Work({Operator("float32", 1e12, 3e9): 2})) == pytest.approx(2 * (2 + 3 + 5))
    assert cpu.seconds(Work({Operator("", 0, 1e9): 3})) == pytest.approx(3 * (2 + 5))


def test_a_run_takes_time_besides_its_steps() -> None:
    cpu = Device("x", 1, 1, {"float32": 1.0}, 0.5, 0.5, 0, 0, 2e6, 5e6, 7, False, 0, [])
    costs = Costs(1, 0, Memory(4, 4, 8, 4), [(3, Step(Work(), 1))], updates=2, update=Work())
    assert costs.seconds(cpu) == pytest.approx(7 + 3 * 2 + 2 * 5)


def test_of_many_widths_three_are_traced() -> None:
    seen = []

    def trace(size: int, width: int) -> Step:
        seen.append(width)
        return Step(Work({Operator("", 0, 1): width}), 0)

    widths = Counter({(1, width): 2 for width in range(4, 105)})
    steps = between(widths, trace)
    assert seen == [4, 54, 104]
    assert sum(times for times, _ in steps) == pytest.approx(202)
    assert sum(times * step.work.total() for times, step in steps) == pytest.approx(2 * sum(range(4, 105)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures a CPU")
def test_the_cpu_at_hand_is_measured() -> None:
    found = here.measured()
    assert 1e-3 < found.tflops["float32"] < 100
    assert 0.1 < found.bandwidth_gb_s < 10_000
    assert found.reserved_gb < found.memory_gb
    assert 0 < found.bandwidth_share <= 1
    host = (found.dispatch_us, found.step_us, found.update_us, found.run_s)
    assert min(host) >= 0
    assert 0 < max(host) < 1_000_000


def test_what_the_host_takes_is_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    took = {"operator": 2e-5, "batch": 3e-3, "update": 0.0, "run": 0.25}
    made = iter([(900, 3, 1, 1), (40_000, 140, 120, 1), (52_000, 280, 120, 1), (90_000, 140, 120, 1)])

    def training(*_: Any, **options: Any) -> tuple[tuple[int, ...], float]:
        counts = next(made)
        return counts, sum(n * seconds for n, seconds in zip(counts, took.values(), strict=True))

    monkeypatch.setattr(here, "_training", training)
    device = Device("x", 1, 1, {"float32": 1.0}, 1, 1, 0, 0, 0, 0, 0, False, 0, [])
    assert here._besides(device) == pytest.approx(list(took.values()), abs=1e-9)
