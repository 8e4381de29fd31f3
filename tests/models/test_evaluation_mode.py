"""Modules run in evaluation mode and get their own modes back."""

import pytest
from torch import nn

from ftkit.models.evaluation_mode import evaluating


def test_each_module_gets_its_own_mode_back_whatever_happens() -> None:
    outer = nn.Sequential(nn.Dropout(), nn.Dropout())
    outer[1].eval()

    def fail() -> None:
        with evaluating([outer]):
            assert not any(module.training for module in outer.modules())
            raise RuntimeError("it fails")

    with pytest.raises(RuntimeError, match="it fails"):
        fail()
    assert [module.training for module in outer.modules()] == [True, True, False]
