"""What operators cost, against numbers worked out by hand: this is where PyTorch's internals are relied on."""

import subprocess
import sys

import torch
from torch import nn
from torch.nn import functional as F

from ftkit.plan.torch_internals import Operator, OperatorCosts, fake_tensors


def test_a_product_and_its_gradients() -> None:
    with fake_tensors(), OperatorCosts() as costs:
        layer = nn.Linear(3, 4, bias=False)
        layer(torch.ones(2, 3)).sum().backward()
    products = {one: times for one, times in costs.work.items() if one.operations}
    # (2, 3) times (3, 4), and (4, 2), which is one number expanded, times (2, 3); what is no parameter has no gradient
    assert products == {Operator("float32", 48, 4 * (6 + 12 + 8)): 1, Operator("float32", 48, 4 * (1 + 6 + 12)): 1}


def test_views_and_empty_tensors_cost_nothing_and_a_picked_row_its_own_size() -> None:
    with fake_tensors(), OperatorCosts() as costs:
        table = torch.empty(1000, 4)
        F.embedding(torch.empty(2, dtype=torch.int64), table.view(1000, 4).detach())
    assert costs.work == {Operator("", 0, 2 * 2 * 4 * 4): 1}


def test_attention_is_one_operator_whose_scores_are_never_held() -> None:
    with fake_tensors(), OperatorCosts() as costs:
        query = torch.ones(2, 4, 512, 8, requires_grad=True)
        F.scaled_dot_product_attention(query, query, query, is_causal=True).sum().backward()
    assert sorted(one.operations for one in costs.work if one.operations) == [
        2 * 2 * 2 * 4 * 512 * 512 * 8,
        5 * 2 * 2 * 4 * 512 * 512 * 8,
    ]
    assert costs.peak < 2 * 4 * 512 * 512 * 4


def test_memory_is_of_what_is_there_at_a_time() -> None:
    with fake_tensors(), OperatorCosts() as costs:
        first = torch.zeros(100)
        second = first + 1
        del first
        third = second + 1
    assert (costs.held, costs.peak) == (800, 800)
    del second, third
    assert costs.held == 0


def test_a_process_that_is_forked_later_can_train() -> None:
    code = """
import os, torch
from torch._subclasses.fake_tensor import FakeTensorMode
from ftkit.plan.torch_internals import fake_tensors

with MODE:
    torch.ones(1, requires_grad=True).backward()
if (child := os.fork()) == 0:
    torch.ones(1, requires_grad=True).backward()
    os._exit(0)
assert os.wait() == (child, 0)
"""
    ended = [
        subprocess.run([sys.executable, "-c", code.replace("MODE", mode)], capture_output=True, text=True, check=False)
        for mode in ("fake_tensors()", "FakeTensorMode()")
    ]
    assert ended[0].returncode == 0, ended[0].stderr
    assert "fork-based multiprocessing" in ended[1].stderr  # or what `fake_tensors` does is needed no more
