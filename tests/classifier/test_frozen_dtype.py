"""The frozen part in bfloat16 under float32 training: near the exact result, never mistaken for it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from watched_runs import SETTINGS, Messages, Watched, classifier, entries, run

pytestmark = pytest.mark.usefixtures("cache")
BF16: dict[str, Any] = {"frozen_dtype": "bfloat16"}
# bf16 keeps 8 bits; these tiny models have large random weights. Logits spread by about 1.
TOLERANCE = 0.1
FROZEN = ["1 last", "3 last layer", "16 last real", "17 no causal mask", "19 mean", "last layer, mean, no padding"]


def difference(one: Watched, other: Watched) -> float:
    return (torch.cat(one.logits) - torch.cat(other.logits)).abs().max().item()


@pytest.mark.parametrize("name", FROZEN)
def test_it_is_near_the_exact_result_kept_or_not(name: str, folder: Path, cache: Path) -> None:
    model, data = SETTINGS[name]
    exact = run(folder, Messages(**data), **model)
    before = entries(cache)
    kept, computed = (run(folder, Messages(**data), cache_frozen=switch, **BF16, **model) for switch in (True, False))
    assert len(entries(cache) - before) == 3  # its own entries
    assert set(kept.attached) == {True}
    assert set(computed.attached) == {False}
    assert 1e-5 < difference(kept, exact) < TOLERANCE
    assert difference(kept, computed) < TOLERANCE / 10
    losses = torch.tensor([kept.losses, computed.losses, exact.losses])
    assert (losses[0] - losses[2]).abs().max() < TOLERANCE
    assert (losses[0] - losses[1]).abs().max() < TOLERANCE / 10


def test_it_shares_its_entries_with_runs_that_are_all_bfloat16(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run(folder, Messages(), precision="bf16-mixed")
    kept = entries(cache)
    shared = run(folder, Messages(), **BF16)
    assert entries(cache) == kept
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "empty"))
    own = run(folder, Messages(), **BF16)
    assert own.losses == shared.losses


@pytest.mark.parametrize("trainable", ["all", "lora"])
def test_it_changes_nothing_where_no_block_is_frozen(trainable: str, folder: Path) -> None:
    one, other = (run(folder, Messages(), trainable=trainable, frozen_dtype=dtype) for dtype in ("bfloat16", "float32"))
    assert one.losses == other.losses
    assert torch.equal(torch.cat(one.logits), torch.cat(other.logits))


@pytest.mark.parametrize("trainable", ["last_layer", "last_block", "last_two_blocks", "all", "lora"])
def test_only_frozen_blocks_run_in_bfloat16_and_hidden_states_stay_float32(trainable: str, folder: Path) -> None:
    model = classifier(folder, trainable=trainable, **BF16)
    model.configure_model()
    products: list[Any] = []
    backbone = model.net.backbone
    for index, block in enumerate(backbone.blocks):
        block.mlp.register_forward_hook(lambda module, given, out, index=index: products.append((index, out.dtype)))
    for block in backbone.blocks[:-1]:
        block.register_forward_hook(lambda module, given, out: products.append(out.dtype))
    backbone.norm.register_forward_pre_hook(lambda module, given: products.append(given[0].dtype))
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "length": torch.tensor([3])}
    logits = model(batch)
    blocks = len(model.net.backbone.blocks)
    learning = {"last_layer": 0, "last_block": 1, "last_two_blocks": 2}.get(trainable, blocks)
    wanted: list[Any] = []
    for index in range(blocks):
        wanted += [(index, torch.float32 if index >= blocks - learning else torch.bfloat16), torch.float32]
    assert products == wanted
    assert logits.dtype == torch.float32


def test_gradients_of_what_learns_are_computed_in_float32(folder: Path) -> None:
    """They are those of float32 arithmetic on the very same frozen outputs."""
    model = classifier(folder, **BF16)
    model.configure_model()
    net, ids, length = model.net, torch.randint(0, 200, (4, 9)), torch.tensor([9, 5, 2, 7])
    with torch.no_grad():
        features = net.run(net.backbone.embed(ids), length, 0, len(net.backbone.blocks) - 1)

    def gradients(*given: Any) -> list[Tensor]:
        net.zero_grad()
        nn.functional.cross_entropy(net(ids, length, *given), torch.tensor([0, 1, 1, 0])).backward()
        return [parameter.grad.clone() for parameter in net.parameters() if parameter.requires_grad]

    whole = gradients()
    net.bf16_blocks = 0
    for one, other in zip(whole, gradients(features, len(net.backbone.blocks) - 1), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
