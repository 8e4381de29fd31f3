from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ftkit.errors import InputError
from ftkit.training.windowed_module import WindowedModule


class Process(WindowedModule):
    """The module on one of several processes; ``everywhere`` is what all of them counted."""

    def __init__(self, processes: int, everywhere: int, micro_batches: int = 1) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        strategy = SimpleNamespace(reduce=lambda count, reduce_op: torch.tensor(everywhere))
        self._fake: Any = SimpleNamespace(
            world_size=processes, accumulate_grad_batches=micro_batches, strategy=strategy, global_step=0
        )

    @property
    def trainer(self) -> Any:
        return self._fake


def step(module: Process, *batches: tuple[float, int]) -> Tensor:
    """The gradient of a step over micro-batches of so large a loss, summed, and so many tokens."""
    optimizer = torch.optim.SGD([module.weight], lr=1.0)
    for total, count in batches:
        loss = module.window_loss(total * module.weight.sum(), count)
        (loss / module.trainer.accumulate_grad_batches).backward()  # as Lightning does
    module.on_before_optimizer_step(optimizer)
    return module.weight.grad


@pytest.mark.parametrize(
    ("processes", "everywhere", "mine"),
    [
        (4, 2, [(0.5, 1)]),  # two of four processes have one token each: the divisor is a half
        (4, 1, [(0.5, 1)]),  # one has
        (2, 1, [(0.0, 0), (0.5, 1)]),  # in its second micro-batch
        (2, 3, [(0.5, 2)]),
        (1, 3, [(0.5, 1), (0.25, 2)]),
        (1, 1, [(0.0, 0), (0.5, 1)]),
    ],
)
def test_a_step_divides_by_the_tokens_of_its_window_however_few(
    processes: int, everywhere: int, mine: list[tuple[float, int]]
) -> None:
    """The sum of the losses over the tokens of all processes; the gradients are averaged over them before."""
    module = Process(processes, everywhere, len(mine))
    gradient = step(module, *mine)
    expected = sum(total for total, _ in mine) * processes / everywhere  # the average still divides by the processes
    assert gradient.tolist() == pytest.approx([expected, expected])


def test_a_step_without_tokens_on_any_process_is_refused() -> None:
    with pytest.raises(InputError, match="no supervised token in the batches of a step"):
        step(Process(2, 0), (0.0, 0))
